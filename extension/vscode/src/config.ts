/** The configuration file: found, created, checked; its errors are the editor's diagnostics. */

import * as fs from "node:fs";
import * as path from "node:path";
import * as vscode from "vscode";

import { CliError, run } from "./cli";

const NAMES = ["sidestage.json", "sidestage.toml", "sidestage.yaml", "sidestage.yml"];
const TEMPLATE = `{
  "feature": {
    "network": { "incoming": "mirror" },
    "fs": "read",
    "env": true
  }
}
`;

type Verified =
  | { type: "Success"; config: { target?: unknown }; warnings: string[] }
  | { type: "Fail"; errors: string[] };

export interface Known {
  file?: string;
  target: boolean;
}

export class ConfigFile implements vscode.Disposable {
  private readonly problems = vscode.languages.createDiagnosticCollection("sidestage");
  private readonly saved: vscode.Disposable;

  constructor(private readonly command: () => readonly string[]) {
    this.saved = vscode.workspace.onDidSaveTextDocument((document) => {
      const folder = vscode.workspace.getWorkspaceFolder(document.uri);
      if (folder && document.uri.fsPath === this.find(folder.uri.fsPath)) {
        this.verify(folder.uri.fsPath).catch(() => undefined); // its errors are in the editor
      }
    });
  }

  dispose(): void {
    this.problems.dispose();
    this.saved.dispose();
  }

  find(folder: string): string | undefined {
    const set = vscode.workspace.getConfiguration("sidestage", vscode.Uri.file(folder)).get<string>("configFile");
    const places = set ? [path.resolve(folder, set)] : NAMES.map((name) => path.join(folder, ".sidestage", name));
    return places.find((place) => fs.existsSync(place));
  }

  /** What the file says; rejects with a CliError when it is wrong. */
  async verify(folder: string): Promise<Known> {
    const file = this.find(folder);
    if (!file) {
      return { target: false };
    }
    const uri = vscode.Uri.file(file);
    const verified = JSON.parse(await run(this.command(), ["verify-config", "--ide", file], folder)) as Verified;
    if (verified.type === "Fail") {
      this.problems.set(uri, verified.errors.map(diagnostic));
      throw new CliError(verified.errors[0] ?? `${file} is wrong`, "");
    }
    this.problems.set(
      uri,
      verified.warnings.map((text) => new vscode.Diagnostic(new vscode.Range(0, 0, 0, 1), text, vscode.DiagnosticSeverity.Information)),
    );
    return { file, target: Boolean(verified.config.target) };
  }

  async open(folder: string): Promise<void> {
    let file = this.find(folder);
    if (!file) {
      file = path.join(folder, ".sidestage", "sidestage.json");
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, TEMPLATE, { flag: "wx" });
    }
    await vscode.window.showTextDocument(vscode.Uri.file(file));
  }
}

/** `FILE:LINE: key: what is wrong` */
function diagnostic(text: string): vscode.Diagnostic {
  const match = /^.*?:(\d+): (.*)$/s.exec(text);
  const line = match ? Number(match[1]) - 1 : 0;
  const range = new vscode.Range(line, 0, line, Number.MAX_SAFE_INTEGER);
  return new vscode.Diagnostic(range, match?.[2] ?? text, vscode.DiagnosticSeverity.Error);
}
