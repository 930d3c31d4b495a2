"""Signs and reads labels, in a child process of its own (sandbox.py), started by manifest.py.

A foreign file may crash or bloat the library that parses it; here that ends with this process, and the server goes on.
The key is handed to the child that signs our own video, and to no other.
"""

import json
import re
from typing import Any

import av

from ..errors import InputError
from ..media.demux import open_input
from .boxes import MAX_PARTS, survey

CHUNK_KB = 4096
MAX_ACTIONS = 1000
TOLD = ("model", "checkpoint_sha256")  # of an action's parameters


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

    active     the newest manifest's name
    manifests  each manifest by its name: see `manifest_facts`; or, where none can be read:
    error      the library's words
    has_manifest  whether the file holds a label at all, readable or not
    playable   whether it is a video, sound or picture; tags: of its container
    many       instead of all these: the file has more parts than are looked at, a label among them
    """
    import c2pa

    offline = {"remote_manifest_fetch": False, "ocsp_fetch": False}
    with open(path, "rb") as file:
        found = survey(file)
        if found.label and found.parts > MAX_PARTS:
            return {"many": MAX_PARTS}
        if found.label is False:  # the library need not see it
            return {"error": "no label", "has_manifest": False, **_tags(path)}
        file.seek(0)
        try:
            reader = c2pa.Reader(None, file, context=c2pa.Context.from_dict({"trust": trust, "verify": offline}))
        except c2pa.C2paError as error:
            return {"error": str(error), "has_manifest": bool(found.label), **_tags(path)}
        active = reader.get_active_manifest()["label"]
        manifests = json.loads(reader.crjson())["manifests"]
    return {"active": active, "manifests": {m["label"]: manifest_facts(m) for m in manifests}}


def manifest_facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """What one manifest says, and what was found of it:

    success, failure   status codes of C2PA; of an ingredient's manifest, only what its user did not find already
    actions, signature
    update             whether it leaves the content, and its hash, to the manifest before it
    ingredients        relationship, manifest (a name, or None), and the codes that its user found: success, failure
    """
    ingredients, actions = [], []
    for kind, assertion in manifest["assertions"].items():
        if kind.startswith("c2pa.actions"):
            actions += [action_facts(a) for a in assertion.get("actions", [])[:MAX_ACTIONS] if isinstance(a, dict)]
        if kind.startswith("c2pa.ingredient"):
            link = assertion.get("activeManifest") or assertion.get("c2pa_manifest") or {}
            name = re.search(r"jumbf=/c2pa/([^/]+)", link.get("url", ""))
            found = (assertion.get("validationResults") or {}).get("activeManifest") or {}
            known = assertion.get("validationStatus") or []  # of older manifests, which list failures alone
            ingredients.append(
                {
                    "relationship": assertion.get("relationship"),
                    "manifest": name and name[1],
                    "success": codes(found.get("success")),
                    "failure": codes(found.get("failure")) + codes(known),
                }
            )
    results = manifest.get("validationResults") or {}
    return {
        "success": codes(results.get("success")),
        "failure": codes(results.get("failure")),
        "actions": actions,
        "signature": manifest.get("signature") or {},
        "update": bool(manifest.get("isUpdateManifest")),
        "ingredients": ingredients,
    }


def action_facts(action: dict[str, Any]) -> dict[str, Any]:
    """What manifest.py looks at; an action may hold anything, in any amount."""
    parameters = action.get("parameters")
    told = {k: parameters.get(k) for k in TOLD} if isinstance(parameters, dict) else {}
    return {"digitalSourceType": action.get("digitalSourceType"), "when": action.get("when"), "parameters": told}


def codes(statuses: Any) -> list[str]:
    """Each status code once."""
    return sorted({s["code"] for s in statuses or () if isinstance(s, dict) and isinstance(s.get("code"), str)})


def _tags(path: str) -> dict[str, Any]:
    try:
        with open_input(path) as container:
            return {"playable": bool(container.streams), "tags": dict(container.metadata)}
    except (av.FFmpegError, InputError):
        return {"playable": False, "tags": {}}
