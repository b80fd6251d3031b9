"""S3: many small objects and one large one put and got, beside moto and the disk itself, in one run.

usage: bench/objects.py NEARGATE   (needs root, and moto in the environment)

moto keeps objects in memory. The disk's figure is what writing the same bytes to files takes when each is made durable
(fsync), as Neargate does before it answers.
"""

import concurrent.futures
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from peer import THEIRS, beside_moto

NEARGATE = Path(sys.argv[1]).resolve()
SMALL, COUNT, AT_ONCE = os.urandom(4096), 1000, 8
LARGE = 1 << 30


def took(call):
    start = time.monotonic()
    call()
    return time.monotonic() - start


def figures(endpoint, key, secret, large, directory):
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=AT_ONCE),
    )
    client.create_bucket(Bucket="bench")
    pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    each = lambda call: list(pool.map(call, range(COUNT)))
    copy, parts = directory / "copy", TransferConfig(max_concurrency=4)
    found = {
        f"{COUNT} objects of 4 KiB put": took(lambda: each(lambda n: client.put_object(Bucket="bench", Key=f"small/{n}", Body=SMALL))),
        f"{COUNT} objects of 4 KiB got": took(lambda: each(lambda n: client.get_object(Bucket="bench", Key=f"small/{n}")["Body"].read())),
        "1 GiB put": took(lambda: client.upload_file(str(large), "bench", "large", Config=parts)),
        "1 GiB got": took(lambda: client.download_file("bench", "large", str(copy), Config=parts)),
    }
    digest = lambda path: hashlib.file_digest(open(path, "rb"), "sha256").digest()
    assert digest(copy) == digest(large)
    copy.unlink()
    return found


def disk(large, directory):
    def write(path, chunks):
        with open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            os.fsync(file.fileno())

    def chunks():
        with open(large, "rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk

    pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    return {
        f"{COUNT} objects of 4 KiB put": took(lambda: list(pool.map(lambda n: write(directory / f"f{n}", [SMALL]), range(COUNT)))),
        f"{COUNT} objects of 4 KiB got": took(lambda: [(directory / f"f{n}").read_bytes() for n in range(COUNT)]),
        "1 GiB put": took(lambda: write(directory / "large", chunks())),
        "1 GiB got": took(lambda: [None for _ in iter(lambda f=open(directory / "large", "rb"): f.read(1 << 20), b"")]),
    }


def main():
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        large = work / "source"
        with open(large, "wb") as file:
            for _ in range(LARGE >> 20):
                file.write(os.urandom(1 << 20))
        with beside_moto(NEARGATE, work) as env:
            ours = figures(env["AWS_ENDPOINT_URL"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], large, work)
            theirs = figures(f"http://127.0.0.1:{THEIRS}", "key", "secret", large, work)
            files = work / "files"
            files.mkdir()
            bare = disk(large, files)
        for what, mine in ours.items():
            print(f"| {what} | {mine:.2f} s | moto {theirs[what]:.2f} s | {mine / theirs[what]:.2f} | the disk {bare[what]:.2f} s |")


main()
