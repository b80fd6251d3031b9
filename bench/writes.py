"""Durable control-plane writes: requests signed beforehand and sent by wrk over 32 connections, beside moto, in one run.

usage: bench/writes.py NEARGATE   (needs root, wrk, and moto in the environment)

Clients that sign as they go (boto3) are the bound themselves on two cores; so signing is done before the clock runs. moto keeps
what it is told in memory and checks no signature; Neargate checks each, and answers when the write is on disk.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from peer import OURS, THEIRS, beside_moto

NEARGATE = Path(sys.argv[1]).resolve()
CLIENTS, THREADS = 32, 2
LUA = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long s, ns; } moment; int clock_gettime(int, moment*);")
local function now()
    local t = ffi.new("moment")
    ffi.C.clock_gettime(1, t)
    return tonumber(t.s) + tonumber(t.ns) / 1e9
end
local threads = {}
function setup(t) t:set("number", #threads); table.insert(threads, t) end
function init(args)
    requests, at, answered, first, last = {}, 0, 0, now(), 0
    for line in io.lines(args[1]) do
        local index, host, date, authorization, body = line:match("^(%d+)\\t(.-)\\t(.-)\\t(.-)\\t(.*)$")
        if tonumber(index) % THREADS == number then
            requests[#requests + 1] = wrk.format("POST", "/", {
                ["Host"] = host, ["X-Amz-Date"] = date, ["Authorization"] = authorization,
                ["Content-Type"] = "application/x-www-form-urlencoded" }, body)
        end
    end
end
function request()
    at = at + 1
    if at > #requests then wrk.thread:stop() end
    return requests[math.min(at, #requests)]
end
function response(status)
    if status == 200 then answered, last = answered + 1, now() end
end
function done()
    local requests, first, last = 0, math.huge, 0
    for _, t in ipairs(threads) do
        requests = requests + t:get("answered")
        first, last = math.min(first, t:get("first")), math.max(last, t:get("last"))
    end
    io.write(string.format('{"requests": %d, "seconds": %f}\\n', requests, last - first))
end
""".replace("THREADS", str(THREADS))


def signed(count, port, key, secret, file):
    """Writes `count` CreateUser requests, signed for a server on `port`."""
    signer = SigV4Auth(Credentials(key, secret), "iam", "us-east-1")
    with open(file, "w") as out:
        for number in range(count):
            body = f"Action=CreateUser&Version=2010-05-08&UserName=user-{number}"
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            request = AWSRequest("POST", f"http://127.0.0.1:{port}/", headers=headers, data=body)
            signer.add_auth(request)
            head = request.headers
            out.write("\t".join([str(number), f"127.0.0.1:{port}", head["X-Amz-Date"], head["Authorization"], body]) + "\n")


def rate(port, count, file, script):
    command = ["wrk", "-t", str(THREADS), "-c", str(CLIENTS), "-d", "20s", "-s", script, f"http://127.0.0.1:{port}/", "--", file]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads(output.strip().splitlines()[-1])
    # The last requests of each thread may still be under way when it stops.
    assert figures["requests"] > count - 2 * CLIENTS, output
    return figures["requests"] / figures["seconds"]


def main():
    work = Path(tempfile.mkdtemp())
    script = work / "writes.lua"
    script.write_text(LUA)
    with beside_moto(NEARGATE, work) as env:
        mine, others = 30_000, 3_000
        signed(mine, OURS, env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], work / "ours")
        signed(others, THEIRS, "key", "secret", work / "theirs")
        ours, theirs = rate(OURS, mine, work / "ours", script), rate(THEIRS, others, work / "theirs", script)
        print(f"| durable writes through the API, {CLIENTS} clients | {ours:,.0f}/s | moto, in memory only {theirs:,.0f}/s | {ours / theirs:.1f} |")


main()
