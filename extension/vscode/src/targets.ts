/** The target picker: kinds first, then what there is of the kind, asked for when it is needed. */

import * as vscode from "vscode";

import { run } from "./cli";

export const KINDS = ["deployment", "statefulset", "daemonset", "rollout", "job", "cronjob", "service", "replicaset", "pod"] as const;

interface Listing {
  targets: { path: string; available: boolean }[];
  current_namespace?: string;
  namespaces?: string[];
}

interface Item extends vscode.QuickPickItem {
  path?: string;
  of?: string;
}

const TARGETLESS: Item = { label: "targetless", description: "in the cluster, as nobody", path: "targetless" };

export interface Choice {
  path: string;
  namespace?: string;
}

export class TargetPicker {
  constructor(
    private readonly command: () => readonly string[],
    private readonly memory: vscode.Memento,
  ) {}

  /** The user's choice, undefined when there was none; rejects with a CliError. */
  async pick(folder: string): Promise<Choice | undefined> {
    let namespace = this.memory.get<string>("namespace");
    for (;;) {
      const kind = await this.pickKind(namespace);
      if (!kind) {
        return undefined;
      }
      if (kind.path) {
        await this.memory.update("last", kind.path);
        return choice(kind.path, namespace);
      }
      if (!kind.of) {
        namespace = (await this.pickNamespace(folder)) ?? namespace;
        await this.memory.update("namespace", namespace);
        continue;
      }
      const picked = await this.pickOf(kind.of, folder, namespace);
      if (picked?.path) {
        await this.memory.update("last", picked.path);
        return choice(picked.path, namespace);
      }
    }
  }

  private pickKind(namespace: string | undefined): Thenable<Item | undefined> {
    const last = this.memory.get<string>("last");
    const items: Item[] = [
      ...(last ? [{ label: last, description: "the last one", path: last }] : []),
      ...KINDS.map((kind) => ({ label: kind, of: kind })),
      { label: "process/...", description: "of this machine, by its id", of: "process" },
      TARGETLESS,
      { label: "another namespace", description: namespace ?? "the kubeconfig's" },
    ];
    return vscode.window.showQuickPick(items, { title: "sidestage: plug into", placeHolder: "a kind of target" });
  }

  private async pickNamespace(folder: string): Promise<string | undefined> {
    const listing = this.list(["-t", "pod"], folder);
    const names = listing.then((found) => found.namespaces ?? []);
    return vscode.window.showQuickPick(names, { title: "sidestage: namespace" });
  }

  private async pickOf(kind: string, folder: string, namespace: string | undefined): Promise<Item | undefined> {
    if (kind === "process") {
      const pid = await vscode.window.showInputBox({ title: "sidestage: process id", validateInput: (text) => (/^\d+$/.test(text) ? "" : "a number") });
      return pid ? { label: pid, path: `process/${pid}` } : undefined;
    }
    const items = this.list(["-t", kind, ...(namespace ? ["-n", namespace] : [])], folder).then((found) =>
      found.targets
        .filter((target) => target.available)
        .map((target): Item => ({ label: target.path.slice(kind.length + 1), path: target.path })),
    );
    return vscode.window.showQuickPick(items, { title: `sidestage: ${kind}`, placeHolder: `none of it is changed` });
  }

  private async list(args: string[], folder: string): Promise<Listing> {
    const found: unknown = JSON.parse(await run(this.command(), ["ls", "--output", "rich", ...args], folder));
    return found as Listing;
  }
}

function choice(path: string, namespace: string | undefined): Choice {
  return namespace ? { path, namespace } : { path };
}
