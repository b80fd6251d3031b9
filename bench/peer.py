"""Neargate and moto side by side, for the benchmarks of APIs."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
OURS, THEIRS = 4610, 4611


@contextlib.contextmanager
def beside_moto(neargate, work):
    """Both, on the ports OURS and THEIRS, until the end; gives what `neargate env` says."""
    place = [neargate, "--data-dir", work / "data"]
    serve = subprocess.Popen([*place, "serve", "--listen", f"127.0.0.1:{OURS}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    moto = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(THEIRS)], **QUIET)
    try:
        assert "ready" in serve.stdout.readline()
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{THEIRS}/", timeout=5)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.05)
        yield json.loads(subprocess.run([*place, "--output", "json", "env"], check=True, capture_output=True).stdout)
    finally:
        subprocess.run([*place, "down"], **QUIET)
        serve.wait(timeout=60)
        moto.kill()
        moto.wait()
