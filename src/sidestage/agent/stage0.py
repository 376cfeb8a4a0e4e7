# The text given to `python -c`: unpacks the payload into sys.modules and runs the agent. Kept below 1 KiB.
import json, os, struct, sys, zlib

def take(n):
    data = b""
    while len(data) < n:
        part = os.read(0, n - len(data))
        if not part:
            sys.exit(94)
        data += part
    return data

sources = json.loads(zlib.decompress(take(struct.unpack("!I", take(4))[0])))

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in sources:
            from importlib.machinery import ModuleSpec
            return ModuleSpec(name, self, is_package=any(n.startswith(name + ".") for n in sources))
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        exec(compile(sources[module.__name__], module.__name__, "exec"), module.__dict__)

sys.meta_path.insert(0, Finder())
from sidestage.agent.main import run
run(json.loads(sys.argv[1]))
