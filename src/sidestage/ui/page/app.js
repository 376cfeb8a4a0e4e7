// What a session tells, drawn as it comes. All text from outside goes through textContent, never through HTML.
"use strict";

const token = location.hash.slice(1) || sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", token);
history.replaceState(null, "", "/"); // the token leaves the address bar

const MAX_ROWS = 2000;
const byId = (id) => document.getElementById(id);
const tables = Object.fromEntries([...document.querySelectorAll("table[data-table]")].map((t) => [t.dataset.table, t.tBodies[0]]));
const counts = {};
const requests = new Map(); // id -> {row, event, answers, differences}
const connections = new Map(); // id -> row
const KINDS = { 1: "A", 5: "CNAME", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS" };
const CODES = { 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED" };
const ERRNO = { 2: "not found", 13: "permission denied", 20: "not a directory", 21: "is a directory", 104: "reset", 110: "timed out", 111: "refused", 113: "no route" };
let current = "requests", chosen = null, session = null, reading = null;

function get(path, options = {}) {
  return fetch(path, { ...options, headers: { Authorization: `Bearer ${token}` } });
}

function element(name, text, cls) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

function row(table, cells) {
  const made = element("tr");
  for (const cell of cells) {
    made.append(cell instanceof Node && cell.nodeName === "TD" ? cell : wrap(cell));
  }
  const body = tables[table];
  body.prepend(made);
  if (body.rows.length > MAX_ROWS) body.lastElementChild.remove();
  counts[table] = (counts[table] || 0) + 1;
  byId(`n-${table}`).textContent = counts[table];
  show(made);
  byId("empty").hidden = Boolean(tables[current].rows.length);
  return made;
}

function wrap(cell) {
  const made = element("td");
  made.append(cell instanceof Node ? cell : document.createTextNode(cell ?? ""));
  return made;
}

const at = (event) => element("td", seconds(event.at), "quiet");
const seconds = (value) => `${value.toFixed(2)} s`;
const ms = (value) => (value < 10 ? value.toFixed(1) : Math.round(value)) + " ms";
const bytes = (n) => (n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`);
const failure = (errno) => (errno ? element("span", ERRNO[errno] || `errno ${errno}`, "bad") : element("span", "ok", "good"));

function status(answer) {
  if (!answer) return element("span", "", "quiet");
  return element("span", answer.status, answer.status >= 500 ? "bad" : answer.status >= 400 ? "warn" : "good");
}

const handlers = {
  about(event) {
    document.title = `${event.target} · sidestage`;
    facts({ target: event.target, program: event.command.join(" ") });
  },
  begin(event) { facts({ host: event.hostname }); },
  env(event) {
    const pairs = Object.entries(event.variables).sort().reverse(); // rows are put on top
    for (const [name, value] of pairs) row("variables", [element("td", name, "path"), element("td", value, "path")]);
  },
  dropped(event) { row("words", ["", `port ${event.port}: ${event.connections} mirrored connections were dropped (${bytes(event.bytes)})`]); },
  link(event) { facts({ "round trip": ms(event.rtt), up: bytes(event.up), down: bytes(event.down), links: event.links }); },
  request(event) {
    const made = row("requests", [at(event), event.method, element("td", event.path, "path"), event.peer[0], "", "", "", ""]);
    requests.set(event.id, { row: made, event, answers: {}, differences: null });
    made.addEventListener("click", () => choose(event.id));
  },
  answer(event) {
    const known = requests.get(event.id);
    if (!known) return;
    known.answers[event.side] = event;
    known.row.cells[event.side === "target" ? 4 : 5].replaceChildren(status(event));
    known.row.cells[6].replaceChildren(times(known.answers));
  },
  compared(event) {
    const known = requests.get(event.id);
    if (!known) return;
    known.differences = event.differences;
    const n = event.differences.length;
    known.row.cells[7].replaceChildren(n ? element("span", n === 1 ? event.differences[0][0] : `${n} differences`, "badge") : element("span", "equal", "badge same"));
    known.row.dataset.differs = n ? "1" : "";
    show(known.row);
    if (chosen === event.id) choose(event.id);
  },
  connect(event) {
    const where = event.path ?? `${event.name ? `${event.name} (${event.host})` : event.host}:${event.port}`;
    connections.set(event.id, row("outgoing", [at(event), event.kind, element("td", where, "path"), failure(event.errno), ms(event.ms), "", "", ""]));
  },
  closed(event) {
    const known = connections.get(event.id);
    if (!known) return;
    [bytes(event.up), bytes(event.down), seconds(event.seconds)].forEach((text, n) => { known.cells[5 + n].textContent = text; });
  },
  dns(event) {
    const answer = event.code ? element("span", CODES[event.code] || `code ${event.code}`, "bad") : event.addresses.join(", ") || `no ${KINDS[event.kind] || event.kind}`;
    row("names", [at(event), element("td", `${event.name} ${KINDS[event.kind] || event.kind}`, "path"), answer]);
  },
  open(event) { row("files", [at(event), element("td", event.path, "path"), failure(event.errno), event.size === null ? "" : bytes(event.size)]); },
  say(event) { row("words", [at(event), element("td", event.text, "path")]); },
  lost(event) { row("words", [at(event), element("td", event.text, "path bad")]); },
  missed(event) { row("words", ["", `${event.events} events were missed: this page is too slow`]); },
  end() { state("the session has ended", "over"); },
};

function times(answers) {
  const made = element("div", null, "times");
  const most = Math.max(...Object.values(answers).map((answer) => answer.ms), 1);
  for (const side of ["target", "local"]) {
    if (!answers[side]) continue;
    const meter = element("meter");
    Object.assign(meter, { min: 0, max: most, value: answers[side].ms, title: `${side} ${ms(answers[side].ms)}` });
    made.append(element("span", ms(answers[side].ms)), meter);
  }
  return made;
}

function facts(changed) {
  for (const [name, value] of Object.entries(changed)) {
    let fact = byId(`fact-${name}`);
    if (!fact) {
      const pair = element("div");
      fact = element("dd");
      fact.id = `fact-${name}`;
      pair.append(element("dt", name), fact);
      byId("facts").append(pair);
    }
    fact.textContent = fact.title = value;
  }
}

function state(text, cls) {
  byId("state").textContent = text;
  byId("state").className = cls || "";
}

async function choose(id) {
  const known = requests.get(id);
  if (chosen !== null) requests.get(chosen)?.row.classList.remove("chosen");
  chosen = id;
  known.row.classList.add("chosen");
  const answer = await get(`/exchange?session=${encodeURIComponent(session)}&id=${id}`);
  const details = await answer.json();
  if (chosen === id) draw(details, known);
}

function draw(details, known) {
  const aside = byId("details");
  aside.hidden = false;
  aside.replaceChildren(element("h2", `${known.event.method} ${known.event.path}`));
  if (details.gone || details.error) {
    aside.append(element("p", details.error || "Its details are no longer kept.", "quiet"));
    return;
  }
  if (known.differences?.length) {
    const table = element("table", null, "differences");
    const head = element("tr");
    head.append(...["", "target", "local"].map((text) => element("th", text)));
    table.append(head);
    for (const [where, theirs, ours] of known.differences) {
      const line = element("tr");
      line.append(element("td", where), element("td", theirs || "(none)", "theirs"), element("td", ours || "(none)", "ours"));
      table.append(line);
    }
    aside.append(element("h2", "Difference"), table);
  }
  const sides = element("div", null, "sides");
  for (const side of ["target", "local"]) {
    const of = details.answers[side];
    if (!of) continue;
    const part = element("div");
    part.append(element("h2", `${side === "target" ? "The target's answer" : "The local program's answer"}: ${of.status} in ${ms(of.ms)}`), message(of));
    sides.append(part);
  }
  aside.append(sides, element("h2", "Request"), message(details));
}

function message(of) {
  const headers = of.headers.map(([name, value]) => `${name}: ${value}`).join("\n");
  return element("pre", `${headers}\n\n${body(of)}`);
}

function body(of) {
  const { text, hex, size, cut } = of.body;
  let shown = text ?? hex ?? "";
  if (text) {
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* no JSON */ }
  }
  return shown + (cut ? `\n… of ${bytes(size)}` : "");
}

function show(line) {
  const wanted = byId("filter").value.toLowerCase();
  const fits = line.textContent.toLowerCase().includes(wanted);
  const differs = !byId("differing").checked || line.parentNode !== tables.requests || line.dataset.differs;
  line.hidden = !(fits && differs);
}

function select(tab) {
  current = tab;
  for (const button of document.querySelectorAll("[role=tab]")) button.setAttribute("aria-selected", button.dataset.tab === tab);
  for (const table of document.querySelectorAll("table[data-table]")) table.hidden = table.dataset.table !== tab;
  byId("details").hidden = tab !== "requests" || chosen === null;
  byId("empty").hidden = Boolean(tables[tab].rows.length);
}

async function follow(id) {
  reading?.abort();
  reading = new AbortController();
  session = id;
  chosen = null;
  requests.clear();
  connections.clear();
  for (const [name, body] of Object.entries(tables)) { body.replaceChildren(); counts[name] = 0; byId(`n-${name}`).textContent = 0; }
  byId("facts").replaceChildren();
  select(current);
  try {
    const answer = await get(`/events?session=${encodeURIComponent(id)}`, { signal: reading.signal });
    if (!answer.ok) { state((await answer.text()).trim(), "over"); return; }
    state("live", "live");
    const stream = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await stream.read();
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (!part.startsWith("data: ")) continue;
        const event = JSON.parse(part.slice(6));
        handlers[event.type]?.(event);
      }
    }
    state("the session has ended", "over");
  } catch (error) {
    if (error.name !== "AbortError") state("the connection is lost: is `sidestage ui` still running?", "over");
  }
}

async function list() {
  let found;
  try {
    const answer = await get("/sessions");
    if (!answer.ok) { state((await answer.text()).trim(), "over"); return; }
    found = await answer.json();
  } catch { return; }
  const picker = byId("sessions");
  const known = [...picker.options].map((option) => option.value);
  for (const about of found) {
    if (!known.includes(about.session)) picker.append(new Option(`${about.target} · ${about.command[0].split("/").pop()}`, about.session));
  }
  if (session === null && found.length) {
    picker.value = found.at(-1).session;
    follow(picker.value);
  } else if (!found.length && session === null) {
    state("no session runs; start one with `sidestage exec`");
  }
}

document.querySelector("nav").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) select(tab.dataset.tab);
});
byId("sessions").addEventListener("change", (event) => follow(event.target.value));
for (const id of ["filter", "differing"]) {
  byId(id).addEventListener("input", () => { for (const body of Object.values(tables)) for (const line of body.rows) show(line); });
}
list();
setInterval(list, 3000);
