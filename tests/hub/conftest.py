"""A run of a tiny model, and a hub of our own: the HTTP that huggingface_hub speaks."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from dlmkit.cli.app import main

TINY = [
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "space.with.dim=8",
    "train.steps=4",
    "train.batch_size=4",
    "train.validate_every=2",
    "train.validation_rows=4",
    "train.sample_every=100",
    "sample.steps=4",
    "sample.count=1",
    "metric=[]",
]


@pytest.fixture(scope="session")
def run(tmp_path_factory, drawing):
    """A finished run of four steps, with its picture."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    sets = [word for override in TINY for word in ("--set", override)]
    with drawing():
        assert main(["train", "ddlm_grammar", "--out", str(folder), *sets]) == 0
    return folder


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """The run as a folder of the hub."""
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    assert main(["export", str(run), str(folder), "--license", "cc0-1.0"]) == 0
    return folder


class Hub(ThreadingHTTPServer):
    """Repositories: ``files[repo][branch]`` maps paths to bytes; ``private`` names some."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.private = {}, set()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, repo, folder, branch="main"):
        """What a folder holds, as a repository."""
        names = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        self.files[repo] = {branch: {name: path.read_bytes() for name, path in names.items()}}

    def at(self, repo, revision):
        """(commit, files) of a branch or a commit; None if there is none."""
        for branch, files in self.files.get(repo, {}).items():
            commit = digest(json.dumps({name: digest(data) for name, data in files.items()}))
            if revision in (branch, commit):
                return commit, files
        return None


def digest(data):
    return hashlib.sha1(data.encode() if isinstance(data, str) else data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def answer(self, code, content=b"", **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, what):
        self.answer(404, {"error": f"{what} not found"}, X_Error_Code=f"{what}NotFound")

    @property
    def words(self):
        return unquote(urlsplit(self.path).path).strip("/").split("/")

    def do_GET(self):
        match self.words:
            case ["api", "models", owner, name, *rest]:
                self.about(f"{owner}/{name}", rest)
            case [owner, name, "resolve", revision, *path]:
                self.file(f"{owner}/{name}", revision, "/".join(path))
            case _:
                self.missing("Repo")

    do_HEAD = do_GET

    def about(self, repo, rest):
        revision = rest[1] if len(rest) > 1 else "main"
        found = self.server.at(repo, revision)
        if repo not in self.server.files:
            return self.missing("Repo")
        if found is None:
            return self.missing("Revision")
        commit, files = found
        if rest[:1] == ["tree"]:
            return self.answer(200, [entry(name, data) for name, data in files.items()])
        siblings = [{"rfilename": name} for name in files]
        self.answer(200, {"id": repo, "sha": commit, "siblings": siblings})

    def file(self, repo, revision, path):
        found = self.server.at(repo, revision)
        if found is None or path not in found[1]:
            return self.missing("Entry")
        data = found[1][path]
        self.answer(200, data, X_Repo_Commit=found[0], ETag=f'"{digest(data)}"')

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "Authorization" not in self.headers:
            return self.answer(401, {"error": "Invalid username or password."})
        match self.words:
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                repo = f"{asked['organization']}/{asked['name']}"
                self.server.files.setdefault(repo, {"main": {}})
                if asked.get("private") or asked.get("visibility") == "private":
                    self.server.private.add(repo)
                self.answer(200, {"url": f"{self.server.address}/{repo}", "id": repo})
            case ["api", "validate-yaml"]:
                self.answer(200, {"errors": [], "warnings": []})
            case ["api", "models", owner, name, "branch", branch]:
                branches = self.server.files[f"{owner}/{name}"]
                branches.setdefault(branch, dict(branches["main"]))
                self.answer(200, {})
            case ["api", "models", _, _, "preupload", _]:
                files = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]
                self.answer(200, {"files": modes})
            case ["api", "models", owner, name, "commit", branch]:
                self.commit(f"{owner}/{name}", branch, body)
            case _:
                self.missing("Repo")

    def commit(self, repo, branch, body):
        for line in body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                value = operation["value"]
                files = self.server.files[repo][branch]
                files[value["path"]] = base64.b64decode(value["content"])
        oid = self.server.at(repo, branch)[0]
        url = f"{self.server.address}/{repo}/commit/{oid}"
        self.answer(200, {"success": True, "commitOid": oid, "commitUrl": url})


def entry(name, data):
    return {"type": "file", "path": name, "size": len(data), "oid": digest(data)}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that huggingface_hub talks to for one test."""
    from huggingface_hub import constants, hf_api
    from transformers.utils import hub as transformers_hub

    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(hf_api.api, "endpoint", server.address)
    # newer transformers keep the client that they make first
    monkeypatch.setattr(transformers_hub, "_hf_api", None, raising=False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + TEMPLATE)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield server
    server.shutdown()
    server.server_close()


TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"
