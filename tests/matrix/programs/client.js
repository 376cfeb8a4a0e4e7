const cluster = require("cluster"), dns = require("dns"), fs = require("fs"), http = require("http"), net = require("net"), os = require("os");
const { Worker, isMainThread, parentPort } = require("worker_threads");

const get = (options) => new Promise((done, failed) => http.get(options, (answer) => {
  let body = ""; answer.on("data", (d) => (body += d)).on("end", () => done(answer.statusCode + " " + body.trim()));
}).on("error", failed));
const talk = (port, host, text) => new Promise((done, failed) => {
  const socket = net.connect(port, host, () => socket.end(text)); let got = "";
  socket.on("data", (d) => (got += d)).on("error", failed).on("end", () => done(`${got} ${socket.remoteAddress} ${socket.localAddress}`));
});

async function main() {
  console.log(process.env.GREETING, os.hostname(), fs.readFileSync("/srv/config.txt", "utf8").trim(), (await fs.promises.readFile("/srv/big")).length);
  const resolver = new dns.promises.Resolver();
  console.log(dns.getServers(), await resolver.resolve4("db.staging.internal"), await dns.promises.lookup("db.staging.internal"));
  for (const ask of [() => dns.promises.resolve4("nowhere.staging.internal"), () => dns.promises.lookup("nowhere.staging.internal")])
    try { await ask(); } catch (e) { console.log(e.code); }
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (let n = 0; n < 3; n++) console.log(await get({ host: "orders.staging.internal", port: 8080, path: "/" + n, agent }));
  agent.destroy();
  console.log(await (await fetch("http://orders.staging.internal:8080/fetch")).text());
  console.log((await Promise.all([...Array(30)].map((_, n) => get(`http://10.77.0.10:8080/${n}`)))).join());
  console.log(await talk(7000, "db.staging.internal", "half-closed"), await talk(7000, "fd77::20", "six"));
  const greeted = net.connect(7002, "10.77.0.20");
  console.log(await new Promise((done) => greeted.once("data", (d) => done(String(d).trim()))));
  greeted.write("node\n"); console.log(await new Promise((done) => greeted.once("data", (d) => done(String(d).trim()))));
  for (const [port, host] of [[7999, "10.77.0.20"], [80, "10.99.99.99"], [80, "nowhere.staging.internal"]])
    try { await talk(port, host, ""); } catch (e) { console.log(e.code); }
  const worker = new Worker(__filename); console.log(await new Promise((done) => worker.once("message", done)));
  const own = http.createServer((q, r) => r.end("to itself " + q.socket.remoteAddress)).listen(0, "127.0.0.1");
  await new Promise((done) => own.once("listening", done)); console.log(await get(`http://127.0.0.1:${own.address().port}/`)); own.close();
  console.log(require("child_process").execFileSync("cat", ["/srv/config.txt"], { encoding: "utf8" }).trim());
}

if (isMainThread) main().then(() => process.exit(0));
else talk(7000, "10.77.0.20", "from a worker").then((text) => parentPort.postMessage(text));
