"""The runner as one file: a zip archive of modules, which Python runs as it is.

Its modules are those that measure on this machine, so that there is one protocol. It needs Python 3.10 or later, numpy
and onnxruntime.
"""

import hashlib
import io
import zipfile
from functools import lru_cache
from importlib import import_module
from inspect import getsource

PYTHON = (3, 10)
"""Oldest Python that runs it."""

MODULES = (
    "searchspaces.errors",
    "searchspaces.files",
    "searchspaces.jsonlines",
    "devices.environment",
    "devices.jobs",
    "devices.local",
    "devices.lock",
    "devices.measurement",
    "devices.meter",
    "devices.onnx_file",
    "devices.protocol",
    "devices.references",
    "devices.session",
    "devices.remote.queue",
    "devices.remote.server",
    "devices.remote.worker",
)

_MAIN = '''
import json, sys
try:
    import numpy, onnxruntime
except Exception as error:
    needs = "The runner needs numpy and onnxruntime, which %s cannot import" % sys.executable
    print("nasflow: " + json.dumps({"error": "%s: %s" % (needs, error), "install": True}), flush=True)
    sys.exit(1)
from pathlib import Path
from devices.remote.server import serve
from devices.remote.worker import work
{"serve": serve, "work": work}[sys.argv[1]](Path(sys.argv[2]))
'''

BOOT = '''
import json, os, sys
folder, name, size = sys.argv[1:4]
def say(**facts):
    sys.stdout.write("nasflow: " + json.dumps(facts) + "\\n")
    sys.stdout.flush()
if sys.version_info < OLDEST:
    here = (sys.executable, sys.version.split()[0])
    say(error="The runner needs Python %d.%d or later, but %s is %s" % (OLDEST + here), install=True)
    sys.exit(1)
import hashlib
folder = os.path.abspath(os.path.expanduser(folder))
path = os.path.join(folder, "runner-" + name[:16] + ".pyz")
def is_whole():
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == name
    except IOError:
        return False
try:
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o700)
    if not is_whole():
        say(send=True)
        data, part = b"", b" "
        while part and len(data) < int(size):
            part = os.read(0, int(size) - len(data))
            data += part
        if len(data) < int(size):
            sys.exit(1)
        partial = "%s.%d" % (path, os.getpid())
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, path)
except (IOError, OSError) as error:
    say(error="The folder %s cannot be written: %s" % (folder, error.strerror))
    sys.exit(1)
os.execv(sys.executable, [sys.executable, path, "serve", folder])
'''.replace("OLDEST", repr(PYTHON))
"""Program, given to `python -c`, that receives the runner where it is not there yet, and becomes it.

Its arguments are the folder, the SHA-256 of the runner and its size. It says what is wrong in any Python.
"""


@lru_cache(maxsize=1)
def runner() -> bytes:
    """Return the runner; the same sources give the same bytes."""
    files = {f"{name.replace('.', '/')}.py": getsource(import_module(name)) for name in MODULES}
    folders = {name.rpartition("/")[0] for name in files}
    files |= {f"{folder}/__init__.py": "" for folder in folders} | {"__main__.py": _MAIN}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def boot_arguments(python: str, folder: str) -> list[str]:
    """Return the command that starts the runner in a folder, as a list of words."""
    return [python, "-c", BOOT, folder, hashlib.sha256(runner()).hexdigest(), str(len(runner()))]
