"""Signs and reads labels, as a child of label.py: `python -m lipsync.notary`.

A foreign file may crash or bloat the library that parses it; here that ends with this process, and the server goes on.
The job comes as JSON on standard input, where a key is safe from other users' eyes; the finding goes as JSON to
standard output.
"""

import json
import sys
from typing import Any, BinaryIO



MEMORY_BYTES = 4 << 30  # address space; the libraries reserve far more than they use
C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # ISO BMFF uuid of Content Credentials
MAX_BOXES = 10_000
CHUNK_KB = 4096


def sign(
    video: str, out: str, manifest: dict[str, Any], algorithm: str, chain: str, key: str, timestamps: str | None
) -> dict[str, str]:
    """Write `out`: `video` with a signed manifest. Returns {}, or {"error": the library's words}.

    The film is hashed in a tree of chunks: hashed in one piece, it would be held in memory, up to half a GB.
    c2pa 0.38.1 miscounts the chunks of a file with several `mdat` boxes (ours have one), so the hash is checked again
    after signing.
    """
    import c2pa

    settings = {
        "builder": {"thumbnail": {"enabled": False}},
        "core": {"merkle_tree_chunk_size_in_kb": CHUNK_KB, "backing_store_memory_threshold_in_mb": 16},
        "verify": {"remote_manifest_fetch": False, "verify_after_sign_hash": True},
    }
    try:
        info = c2pa.C2paSignerInfo(algorithm, chain.encode(), key.encode(), timestamps)
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(manifest, context=c2pa.Context.from_dict(settings)) as builder,
            open(video, "rb") as plain,
            open(out, "w+b") as signed,
        ):
            builder.sign(signer, "video/mp4", plain, signed)
    except (c2pa.C2paError, OSError) as error:
        return {"error": str(error)}
    return {}


def read(path: str, trust: dict[str, Any]) -> dict[str, Any]:
    """What the file at `path` says of its own making; trust is as the settings of c2pa have it. Returns

    success, failure (status codes of C2PA), actions, signature   of the newest manifest, or, where none can be read:
    error      the library's words
    carries    whether the file holds a C2PA box at all, readable or not
    playable   whether it is a video, sound or picture; tags: of its container
    """
    import c2pa

    offline = {"remote_manifest_fetch": False, "ocsp_fetch": False}
    context = c2pa.Context.from_dict({"trust": trust, "verify": offline})
    with open(path, "rb") as file:
        try:
            reader = c2pa.Reader(None, file, context=context)
        except c2pa.C2paError as error:
            return {"error": str(error), "carries": _carries(file), **_tags(path)}
        label = reader.get_active_manifest()["label"]
        manifest = next(m for m in json.loads(reader.crjson())["manifests"] if m["label"] == label)
        results = reader.get_validation_results()["activeManifest"]
    assertions = manifest["assertions"].items()
    actions = [a for k, v in assertions if k.startswith("c2pa.actions") for a in v["actions"]]
    return {
        "success": [s["code"] for s in results["success"]],
        "failure": [s["code"] for s in results["failure"]],
        "actions": actions,
        "signature": manifest["signature"],
    }


def _carries(file: BinaryIO) -> bool:
    """Whether a C2PA box lies at the top level of an ISO BMFF file, walked as far as it goes."""
    at = 0
    for _ in range(MAX_BOXES):
        file.seek(at)
        head = file.read(32)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind == b"uuid" and head[8:24] == C2PA_BOX:
            return True
        if size == 1:  # a 64-bit size follows
            size = int.from_bytes(head[8:16], "big")
        if size < 8 or len(head) < 8:
            return False
        at += size
    return False


def _tags(path: str) -> dict[str, Any]:
    import av

    try:
        with av.open(path, metadata_errors="replace") as container:
            return {"playable": bool(container.streams), "tags": dict(container.metadata)}
    except (av.FFmpegError, ValueError, OSError):
        return {"playable": False, "tags": {}}


def main() -> None:
    """Limit this process, do the job, print the finding."""

    job, request = json.load(sys.stdin)
    print(json.dumps({"sign": sign, "read": read}[job](**request)))


if __name__ == "__main__":
    main()
