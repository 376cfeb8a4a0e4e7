/** Composes the parts: status bar, commands, and the change of launch configurations. */

import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import * as vscode from "vscode";

import { CliError } from "./cli";
import { ConfigFile } from "./config";
import { rewrite, script, type Launch, type Plug } from "./rewrite";
import { Session } from "./session";
import { TargetPicker, type Choice } from "./targets";

export function activate(context: vscode.ExtensionContext): void {
  const app = new App(context);
  context.subscriptions.push(
    app,
    vscode.debug.registerDebugConfigurationProvider("*", app),
    vscode.commands.registerCommand("sidestage.toggle", () => app.toggle()),
    vscode.commands.registerCommand("sidestage.selectTarget", () => app.guard(() => app.selectTarget(folderOf(undefined)))),
    vscode.commands.registerCommand("sidestage.openConfig", () => app.guard(() => app.config.open(folderOf(undefined)))),
    vscode.commands.registerCommand("sidestage.openTerminal", () => app.guard(() => app.openTerminal())),
    vscode.commands.registerCommand("sidestage.doctor", () => app.terminal(["doctor"])),
    vscode.commands.registerCommand("sidestage.openUi", () => app.guard(() => app.session.openUi())),
  );
}

class App implements vscode.DebugConfigurationProvider, vscode.Disposable {
  readonly config: ConfigFile;
  readonly session: Session;
  private readonly status = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Left, 50);
  private readonly picker: TargetPicker;
  private readonly memory: vscode.Memento;

  constructor(private readonly context: vscode.ExtensionContext) {
    this.memory = context.workspaceState;
    this.picker = new TargetPicker(() => this.command, this.memory);
    this.config = new ConfigFile(() => this.command);
    this.session = new Session(() => this.command);
    this.status.command = "sidestage.toggle";
    this.show();
    this.status.show();
  }

  dispose(): void {
    this.status.dispose();
    this.config.dispose();
    this.session.dispose();
  }

  private get command(): readonly string[] {
    const set = vscode.workspace.getConfiguration("sidestage").get<string[]>("command", []);
    return set.length ? set : ["sidestage"];
  }

  private get enabled(): boolean {
    const byDefault = vscode.workspace.getConfiguration("sidestage").get<boolean>("enabledByDefault", false);
    return this.memory.get<boolean>("enabled", byDefault);
  }

  async toggle(): Promise<void> {
    await this.memory.update("enabled", !this.enabled);
    this.show();
  }

  private show(): void {
    const target = this.memory.get<Choice>("target")?.path;
    this.status.text = this.enabled ? `$(plug) sidestage${target ? `: ${target}` : ""}` : "$(debug-disconnect) sidestage";
    this.status.tooltip = this.enabled ? "Runs are plugged into the target. Click to run them here." : "Click to plug runs into a target.";
    this.status.backgroundColor = this.enabled ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
  }

  async selectTarget(folder: string): Promise<Choice | undefined> {
    const choice = await this.picker.pick(folder);
    if (choice) {
      await this.memory.update("target", choice);
      await this.memory.update("enabled", true);
      this.show();
    }
    return choice;
  }

  /** The last moment before a debugger starts: variables are substituted, interpreters are found. */
  async resolveDebugConfigurationWithSubstitutedVariables(
    folder: vscode.WorkspaceFolder | undefined,
    launch: vscode.DebugConfiguration,
  ): Promise<vscode.DebugConfiguration | undefined | null> {
    // What a debugger starts by itself, for a child of a program that is plugged in, is plugged in already.
    const own = ["__sidestage", "__pendingTargetId", "subProcessId"].some((key) => key in launch);
    if (!this.enabled || launch["sidestage"] === false || own) {
      return launch;
    }
    return this.guard(async () => {
      const plug = await this.plug(folderOf(folder));
      if (!plug) {
        return undefined; // no target was chosen: nothing is started
      }
      const changed = rewrite(launch as Launch, plug);
      if ("refused" in changed) {
        throw new CliError(`${launch.name} can't be plugged in: ${changed.refused}`, "or switch sidestage off in the status bar");
      }
      return { ...changed.launch, __sidestage: true };
    });
  }

  /** Arguments for one run; checks the configuration first, so that its errors are shown where they are. */
  private async plug(folder: string): Promise<Plug | undefined> {
    const known = await this.config.verify(folder);
    let target = this.memory.get<Choice>("target");
    if (!known.target && !target) {
      target = await this.selectTarget(folder);
      if (!target) {
        return undefined;
      }
    }
    const key = `vscode-${randomBytes(4).toString("hex")}`;
    const command = [...this.command, "exec", "--key", key];
    if (known.file) {
      command.push("-f", known.file);
    }
    if (target && !known.target) {
      command.push("-t", target.path, ...(target.namespace ? ["-n", target.namespace] : []));
    }
    command.push("--");
    this.session.follow(key);
    return { command, wrapper: (program) => this.wrapper(command, program) };
  }

  private wrapper(command: readonly string[], program: string): string {
    const text = script(command, program);
    const folder = path.join(this.context.globalStorageUri.fsPath, createHash("sha256").update(text).digest("hex").slice(0, 16));
    fs.mkdirSync(folder, { recursive: true });
    const file = path.join(folder, path.basename(program)); // debuggers look at the name
    fs.writeFileSync(file, text, { mode: 0o755 });
    return file;
  }

  async openTerminal(): Promise<void> {
    const plug = await this.plug(folderOf(undefined));
    if (plug) {
      const [shellPath, ...shellArgs] = plug.command;
      const shell = vscode.env.shell || "/bin/sh";
      vscode.window.createTerminal({ name: "sidestage", shellPath: shellPath!, shellArgs: [...shellArgs, shell] }).show();
    }
  }

  terminal(args: readonly string[]): void {
    const [shellPath, ...before] = this.command;
    vscode.window.createTerminal({ name: "sidestage", shellPath: shellPath!, shellArgs: [...before, ...args] }).show();
  }

  /** Errors become a message with what to do about them. */
  async guard<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof CliError)) {
        throw error;
      }
      const actions = /target|pod|deployment|process/i.test(error.message) ? ["Select Target"] : ["Open Configuration"];
      const chosen = await vscode.window.showErrorMessage(error.message, ...actions);
      if (chosen === "Select Target") {
        await this.selectTarget(folderOf(undefined));
      } else if (chosen) {
        await this.config.open(folderOf(undefined));
      }
      return undefined;
    }
  }
}

/** Of several workspace folders the one that runs, else the active editor's, else the first. */
function folderOf(folder: vscode.WorkspaceFolder | undefined): string {
  const editor = vscode.window.activeTextEditor;
  const active = editor && vscode.workspace.getWorkspaceFolder(editor.document.uri);
  return (folder ?? active ?? vscode.workspace.workspaceFolders?.[0])?.uri.fsPath ?? process.cwd();
}

