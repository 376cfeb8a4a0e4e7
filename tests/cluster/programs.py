"""The same report in several languages: what a program sees of its surroundings, a fact a line. Argument: the namespace."""

from __future__ import annotations

FACTS = (
    "greeting", "hostname", "config", "secret", "token", "catalog", "ledger", "headless", "refused", "nowhere",
)  # fmt: skip
CONFIG, SECRET = "/app/config/app.conf", "/app/secret/password"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"

PYTHON = f"""
import errno, os, socket, sys, urllib.request
print("greeting", os.environ["GREETING"])
print("hostname", socket.gethostname())
print("config", open("{CONFIG}").readline().strip())
print("secret", open("{SECRET}").read())
print("token", open("{TOKEN}").read()[-16:])
print("catalog", urllib.request.urlopen("http://catalog/x", timeout=9).read().decode().strip())
with socket.create_connection(("ledger-0.ledger." + sys.argv[1] + ".svc.cluster.local", 7000), 9) as s:
    s.sendall(b"ping"); print("ledger", s.recv(9).decode())
print("headless", socket.gethostbyname("ledger"))
try: socket.create_connection(("ledger", 7999), 9)
except OSError as error: print("refused", error.errno == errno.ECONNREFUSED)
try: socket.getaddrinfo("nowhere", 80)
except socket.gaierror as error: print("nowhere", error.errno == socket.EAI_NONAME)
"""

NODE = f"""
const fs = require("fs"), os = require("os"), net = require("net"), dns = require("dns").promises;
const connect = (host, port) => new Promise((done, fail) => {{
  const s = net.connect(port, host, () => done(s)); s.on("error", fail);
}});
(async () => {{
  console.log("greeting", process.env.GREETING);
  console.log("hostname", os.hostname());
  console.log("config", fs.readFileSync("{CONFIG}", "utf8").split("\\n")[0]);
  console.log("secret", fs.readFileSync("{SECRET}", "utf8"));
  console.log("token", fs.readFileSync("{TOKEN}", "utf8").slice(-16));
  console.log("catalog", (await (await fetch("http://catalog/x")).text()).trim());
  const s = await connect("ledger-0.ledger." + process.argv[1] + ".svc.cluster.local", 7000);
  s.write("ping"); console.log("ledger", String(await new Promise(done => s.once("data", done)))); s.destroy();
  console.log("headless", (await dns.lookup("ledger")).address);
  try {{ await connect("ledger", 7999) }} catch (e) {{ console.log("refused", e.code === "ECONNREFUSED" ? "True" : e.code) }}
  try {{ await dns.lookup("nowhere") }} catch (e) {{ console.log("nowhere", e.code === "ENOTFOUND" ? "True" : e.code) }}
}})();
"""

GO = f"""
package main

import ("errors"; "fmt"; "io"; "net"; "net/http"; "os"; "strings"; "syscall")

func read(path string) string {{ b, err := os.ReadFile(path); if err != nil {{ panic(err) }}; return string(b) }}

func main() {{
    fmt.Println("greeting", os.Getenv("GREETING"))
    name, _ := os.Hostname(); fmt.Println("hostname", name)
    fmt.Println("config", strings.Split(read("{CONFIG}"), "\\n")[0])
    fmt.Println("secret", read("{SECRET}"))
    token := read("{TOKEN}"); fmt.Println("token", token[len(token)-16:])
    r, err := http.Get("http://catalog/x"); if err != nil {{ panic(err) }}
    body, _ := io.ReadAll(r.Body); fmt.Println("catalog", strings.TrimSpace(string(body)))
    c, err := net.Dial("tcp", "ledger-0.ledger." + os.Args[1] + ".svc.cluster.local:7000"); if err != nil {{ panic(err) }}
    c.Write([]byte("ping")); b := make([]byte, 9); n, _ := c.Read(b); fmt.Println("ledger", string(b[:n]))
    a, err := net.LookupHost("ledger"); fmt.Println("headless", a[0])
    _, err = net.Dial("tcp", "ledger:7999")
    if errors.Is(err, syscall.ECONNREFUSED) {{ fmt.Println("refused True") }} else {{ fmt.Println("refused", err) }}
    _, err = net.LookupHost("nowhere"); var d *net.DNSError
    if errors.As(err, &d) && d.IsNotFound {{ fmt.Println("nowhere True") }} else {{ fmt.Println("nowhere", err) }}
}}
"""

JAVA = f"""
import java.net.*; import java.net.http.*; import java.nio.file.*;

public class Report {{
    static String read(String path) throws Exception {{ return Files.readString(Path.of(path)); }}

    public static void main(String[] args) throws Exception {{
        System.out.println("greeting " + System.getenv("GREETING"));
        System.out.println("hostname " + InetAddress.getLocalHost().getHostName());
        System.out.println("config " + read("{CONFIG}").split("\\n")[0]);
        System.out.println("secret " + read("{SECRET}"));
        String token = read("{TOKEN}"); System.out.println("token " + token.substring(token.length() - 16));
        HttpRequest ask = HttpRequest.newBuilder(URI.create("http://catalog/x")).build();
        System.out.println("catalog " + HttpClient.newHttpClient().send(ask, HttpResponse.BodyHandlers.ofString()).body().trim());
        try (Socket s = new Socket("ledger-0.ledger." + args[0] + ".svc.cluster.local", 7000)) {{
            s.getOutputStream().write("ping".getBytes()); byte[] b = new byte[9]; int n = s.getInputStream().read(b);
            System.out.println("ledger " + new String(b, 0, n));
        }}
        System.out.println("headless " + InetAddress.getByName("ledger").getHostAddress());
        try {{ new Socket("ledger", 7999); }}
        catch (ConnectException e) {{ System.out.println("refused " + (e.getMessage().contains("refused") ? "True" : e)); }}
        try {{ InetAddress.getByName("nowhere"); }} catch (UnknownHostException e) {{ System.out.println("nowhere True"); }}
    }}
}}
"""

SHELL = f"""
echo "greeting $GREETING"
echo "hostname $(uname -n)"
echo "config $(head -1 {CONFIG})"
echo "secret $(cat {SECRET})"
echo "token $(tail -c 16 {TOKEN})"
echo "catalog $(curl -sS -m 9 http://catalog/x)"
exec 3<>/dev/tcp/ledger-0.ledger.$1.svc.cluster.local/7000; printf ping >&3; echo "ledger $(head -c 4 <&3)"
echo "headless $(getent ahostsv4 ledger | awk 'NR == 1 {{ print $1 }}')"
curl -sS -m 9 http://ledger:7999/; [ $? = 7 ] && echo "refused True"
curl -sS -m 9 http://nowhere/; [ $? = 6 ] && echo "nowhere True"
"""

# Prints "listening", then each request's path and the client's address, seen in accept and by getpeername.
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.client_address[0], self.connection.getpeername()[0], flush=True)
        self.send_response(200); self.send_header("Content-Length", "5"); self.end_headers(); self.wfile.write(b"local")
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler); print("listening", flush=True); server.serve_forever()
"""
GO_SERVER = """
package main
import ("fmt"; "net"; "net/http")
func main() {
    l, err := net.Listen("tcp", ":8080"); if err != nil { panic(err) }
    fmt.Println("listening")
    http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
        host, _, _ := net.SplitHostPort(r.RemoteAddr); fmt.Println(r.URL.Path, host, host) }))
}
"""

# Asks catalog who it is talking to, several times a second; an address or an error a line, numbered.
LOOKER = """
import json, time, urllib.request
print("begun", flush=True)
for number in range(100000):
    try:
        with urllib.request.urlopen("http://catalog/x", timeout=2) as answer:
            print(number, json.load(answer)["peer"].rpartition(":")[0], flush=True)
    except (OSError, ValueError) as error: print(number, "error", error, flush=True)
    time.sleep(0.2)
"""
