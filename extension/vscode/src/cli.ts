/** Runs sidestage for its answers: JSON on standard output, and on failure two lines on standard error, cause and cure. */

import { execFile } from "node:child_process";

export class CliError extends Error {
  constructor(
    readonly cause: string,
    readonly cure: string,
  ) {
    super(cure ? `${cause}. ${cure}` : cause);
  }
}

const LIMIT = 64 << 20; // bytes of an answer: a list of all targets of a large cluster has some hundred KiB

/** What `command args` prints; rejects with a CliError. */
export function run(command: readonly string[], args: readonly string[], folder: string, seconds = 30): Promise<string> {
  const [program = "sidestage", ...before] = command;
  return new Promise((resolve, reject) => {
    execFile(
      program,
      [...before, ...args],
      { cwd: folder, timeout: seconds * 1000, maxBuffer: LIMIT },
      (error, out, err) => {
        if (!error) {
          resolve(out);
        } else if ((error as NodeJS.ErrnoException).code === "ENOENT") {
          reject(new CliError(`${program} is not installed`, "pip install sidestage, or set sidestage.command"));
        } else if (error.killed) {
          reject(new CliError(`sidestage ${args[0]} took longer than ${seconds} s`, "is the cluster reachable?"));
        } else {
          reject(failure(err));
        }
      },
    );
  });
}

/** `sidestage: CAUSE` and, indented below, the cure. */
export function failure(said: string): CliError {
  const lines = said.trimEnd().split("\n");
  const at = lines.findLastIndex((line) => line.startsWith("sidestage: "));
  if (at < 0) {
    return new CliError(lines.at(-1) || "sidestage failed without a word", "");
  }
  const cure = lines.slice(at + 1).map((line) => line.trim());
  return new CliError(lines[at]!.slice("sidestage: ".length), cure.join(" "));
}
