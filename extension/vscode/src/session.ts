/** The live view: what the session tells, as a tree beside the debugger's. */

import { spawn, type ChildProcess } from "node:child_process";
import * as readline from "node:readline";
import * as vscode from "vscode";

import { CliError } from "./cli";
import { Live, type Entry, type Event, type Group } from "./live";

const RETRY = 500; // ms between looks for a session that is on its way
const PATIENCE = 120_000; // ms until it must be there: an image may have to be pulled

type Node = Group | Entry;

export class Session implements vscode.Disposable, vscode.TreeDataProvider<Node> {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly view: vscode.TreeView<Node>;
  private live = new Live();
  private follower: ChildProcess | undefined;
  private key = "";
  private drawn: NodeJS.Timeout | undefined;

  constructor(private readonly command: () => readonly string[]) {
    this.view = vscode.window.createTreeView<Node>("sidestage.session", { treeDataProvider: this });
  }

  dispose(): void {
    this.follower?.kill();
    clearTimeout(this.drawn);
    this.view.dispose();
    this.changed.dispose();
  }

  /** Show the session with this key as soon as there is one. */
  follow(key: string): void {
    this.follower?.kill();
    this.key = key;
    this.live = new Live();
    void vscode.commands.executeCommand("setContext", "sidestage.live", true);
    this.attempt(key, Date.now() + PATIENCE);
  }

  private attempt(key: string, until: number): void {
    const [program = "sidestage", ...before] = this.command();
    const process = spawn(program, [...before, "status", "--follow", key], { stdio: ["ignore", "pipe", "ignore"] });
    this.follower = process;
    process.on("error", () => undefined); // `exec` itself tells what is wrong
    readline.createInterface({ input: process.stdout }).on("line", (line) => {
      this.live.take(JSON.parse(line) as Event);
      this.draw();
    });
    process.on("close", (code) => {
      if (key === this.key && code !== 0 && !this.live.begun && Date.now() < until) {
        setTimeout(() => key === this.key && this.attempt(key, until), RETRY);
      } else if (key === this.key) {
        this.live.ended = true;
        this.draw();
      }
    });
  }

  /** At most some times a second, however much happens. */
  private draw(): void {
    this.drawn ??= setTimeout(() => {
      this.drawn = undefined;
      this.view.description = this.live.summary();
      this.changed.fire();
    }, 200);
  }

  getChildren(node?: Node): Node[] {
    return node === undefined ? this.live.groups() : "entries" in node ? node.entries : [];
  }

  getTreeItem(node: Node): vscode.TreeItem {
    const folds = "entries" in node;
    const item = new vscode.TreeItem(
      node.label,
      folds ? vscode.TreeItemCollapsibleState.Expanded : vscode.TreeItemCollapsibleState.None,
    );
    item.description = node.description;
    item.iconPath = new vscode.ThemeIcon(node.icon);
    if (folds) {
      item.id = node.label;
    }
    return item;
  }

  /** The page of the session, in the browser. */
  async openUi(): Promise<void> {
    const [program = "sidestage", ...before] = this.command();
    const process = spawn(program, [...before, "ui", ...(this.key ? [this.key] : [])], { stdio: ["ignore", "pipe", "pipe"] });
    const url = await new Promise<string>((resolve, reject) => {
      readline.createInterface({ input: process.stdout }).once("line", resolve);
      process.once("error", () => reject(new CliError(`${program} is not installed`, "set sidestage.command")));
      process.once("close", () => reject(new CliError("no session runs", "start one with F5, sidestage switched on")));
    });
    await vscode.env.openExternal(await vscode.env.asExternalUri(vscode.Uri.parse(url)));
  }
}
