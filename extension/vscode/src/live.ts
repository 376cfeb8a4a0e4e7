/** What a session has told, summed up for people: pure, no editor in it. */

export type Event = { type: string; at?: number } & Record<string, unknown>;

export interface Entry {
  label: string;
  description: string;
  icon: string;
}

export interface Group extends Entry {
  entries: Entry[];
}

const MAX_ENTRIES = 100; // of a group, the newest first

interface Kept extends Entry {
  id?: number;
}

export class Live {
  begun = false;
  ended = false;
  private target = "";
  private host = "";
  private roundTrip: number | undefined;
  private readonly lists: Record<string, Kept[]> = { Requests: [], Outgoing: [], DNS: [], Files: [], Environment: [], Messages: [] };
  private readonly counts: Record<string, number> = {};

  take(event: Event): void {
    const { type } = event;
    if (type === "about") {
      this.begun = true;
      this.target = String(event["target"]);
    } else if (type === "begin") {
      this.host = String(event["hostname"]);
    } else if (type === "env") {
      for (const [name, value] of Object.entries(event["variables"] as Record<string, string>).sort().reverse()) {
        this.add("Environment", { label: name, description: value, icon: "symbol-variable" });
      }
    } else if (type === "link") {
      this.roundTrip = Number(event["rtt"]);
    } else if (type === "request") {
      const peer = (event["peer"] as unknown[])[0];
      this.add("Requests", {
        id: Number(event["id"]),
        label: `${String(event["method"])} ${String(event["path"])}`,
        description: `from ${String(peer)}`,
        icon: "arrow-right",
      });
    } else if (type === "answer") {
      this.change("Requests", event, (entry) => {
        entry.description += ` · ${String(event["side"])} ${String(event["status"])} in ${ms(event["ms"])}`;
        if (Number(event["status"]) >= 500 && event["side"] === "local") {
          entry.icon = "error";
        }
      });
    } else if (type === "compared") {
      this.change("Requests", event, (entry) => {
        const found = (event["differences"] as unknown[]).length;
        entry.description += found ? ` · ${found} different` : " · equal";
        entry.icon = found ? "diff" : "pass";
      });
    } else if (type === "connect") {
      const where = event["path"] ?? `${String(event["name"] ?? event["host"])}:${String(event["port"])}`;
      const errno = Number(event["errno"]);
      this.add("Outgoing", {
        id: Number(event["id"]),
        label: String(where),
        description: `${String(event["kind"])} · ${errno ? `errno ${errno}` : "connected"} in ${ms(event["ms"])}`,
        icon: errno ? "error" : "plug",
      });
    } else if (type === "dns") {
      const addresses = event["addresses"] as string[];
      this.add("DNS", { label: String(event["name"]), description: addresses.join(", ") || "no address", icon: "globe" });
    } else if (type === "open") {
      this.add("Files", { label: String(event["path"]), description: event["errno"] ? `errno ${String(event["errno"])}` : "", icon: "file" });
    } else if (type === "say" || type === "lost") {
      this.add("Messages", { label: String(event["text"]), description: "", icon: type === "lost" ? "error" : "info" });
    }
  }

  groups(): Group[] {
    return Object.entries(this.lists)
      .filter(([, entries]) => entries.length)
      .map(([label, entries]) => ({ label, description: String(this.counts[label]), icon: ICONS[label] ?? "circle", entries }));
  }

  summary(): string {
    if (!this.begun) {
      return "starting";
    }
    const where = this.host ? `${this.target} (${this.host})` : this.target;
    const trip = this.roundTrip === undefined ? "" : ` · ${ms(this.roundTrip)}`;
    return this.ended ? `${where} · ended` : where + trip;
  }

  private add(group: string, entry: Kept): void {
    const list = this.lists[group]!;
    list.unshift(entry);
    list.length = Math.min(list.length, MAX_ENTRIES);
    this.counts[group] = (this.counts[group] ?? 0) + 1;
  }

  private change(group: string, event: Event, change: (entry: Kept) => void): void {
    const found = this.lists[group]!.find((entry) => entry.id === Number(event["id"]));
    if (found) {
      change(found);
    }
  }
}

const ICONS: Record<string, string> = { Requests: "arrow-swap", Outgoing: "plug", DNS: "globe", Files: "files", Environment: "symbol-variable", Messages: "comment" };

function ms(value: unknown): string {
  const number = Number(value);
  return `${number < 10 ? number.toFixed(1) : Math.round(number)} ms`;
}
