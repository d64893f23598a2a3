"""What a stand-in for the Hugging Face Hub holds: repositories with their commits, branches and tags."""

import hashlib
import json
from collections.abc import Mapping

import attrs

_LFS_SUFFIXES = (".onnx", ".onnx_data", ".npy", ".bin", ".safetensors")

Files = Mapping[str, bytes]


@attrs.define
class Repository:
    """Commits (path -> content), and the branches and tags that point at them."""

    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = attrs.field(factory=dict)
    messages: list[str] = attrs.field(factory=list)
    branches: dict[str, str] = attrs.field(factory=dict)
    tags: dict[str, str] = attrs.field(factory=dict)

    def commit(self, files: Files, message: str, branch: str = "main") -> str:
        parent = self.branches.get(branch, "")
        state = [self.name, parent, message, *([name, git_hash(files[name])] for name in sorted(files))]
        commit = hashlib.sha1(json.dumps(state).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.messages.append(message)
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None

    def files(self, revision: str = "main") -> Files:
        commit = self.resolve(revision)
        assert commit is not None
        return self.commits[commit]


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(path: str, content_or_sample: bytes) -> bool:
    return path.endswith(_LFS_SUFFIXES) or b"\0" in content_or_sample[:512]


def entry(path: str, content: bytes) -> dict[str, object]:
    described: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if is_large(path, content):
        described["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return described
