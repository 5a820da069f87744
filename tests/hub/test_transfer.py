"""Sending to a hub and fetching from it, over HTTP."""

import json
import shutil

import pytest

import dlmkit
from dlmkit.cli.app import main
from dlmkit.model.fetch import READ
from dlmkit.training.checkpoint import place

REPO = "someone/tiny"


@pytest.fixture
def fetch(tmp_path, capsys):
    """Runs `dlmkit pull`; gives (exit code, stderr, folder)."""

    def call(*options, repo=REPO):
        folder = tmp_path / "pulled"
        code = main(["pull", repo, str(folder), *options])
        return code, capsys.readouterr().err, folder

    return call


def same(one, other, *, but=()):
    names = {path.name for path in one.iterdir()} | {path.name for path in other.iterdir()}
    return all((one / n).read_bytes() == (other / n).read_bytes() for n in names - set(but))


def test_what_is_sent_comes_back(hub, run, exported, fetch, capsys):
    assert main(["push", str(run), REPO, "--license", "cc0-1.0", "--private", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"].startswith(f"{hub.address}/{REPO}/commit/")
    assert hub.private == {REPO}
    code, _, folder = fetch()
    assert code == 0
    assert same(folder, exported, but=["README.md"])  # its title is the repository's
    assert "# tiny" in (folder / "README.md").read_text()
    assert [t.text for t in dlmkit.load(folder).sample(2)] == [
        t.text for t in dlmkit.load(run).sample(2)
    ]


def test_without_a_folder_it_takes_the_repositorys_name(
    hub, exported, tmp_path, monkeypatch, capsys
):
    hub.put(REPO, exported)
    monkeypatch.chdir(tmp_path)
    assert main(["pull", REPO]) == 0
    assert capsys.readouterr().out == "tiny\n"
    assert same(tmp_path / "tiny", exported)
    assert main(["pull", REPO]) == 2
    assert "tiny exists already" in capsys.readouterr().err


def test_a_branch_is_made_and_fetched(hub, exported, fetch):
    assert main(["push", str(exported), REPO, "--revision", "second"]) == 0
    assert hub.files[REPO]["main"] == {}
    code, err, _ = fetch("--revision", "third")
    assert (code, "RevisionNotFoundError" in err) == (5, True)
    code, _, folder = fetch("--revision", "second")
    assert code == 0
    assert same(folder, exported)


def test_an_edited_card_is_no_damage_and_is_kept(hub, exported, tmp_path, fetch):
    edited = shutil.copytree(exported, tmp_path / "edited")
    (edited / "README.md").write_text("# Mine\n")
    assert main(["push", str(edited), REPO]) == 0
    code, _, folder = fetch()
    assert (code, (folder / "README.md").read_text()) == (0, "# Mine\n")


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.yaml", "manifest.json"])
def test_a_flipped_byte_is_found(hub, exported, fetch, name):
    hub.put(REPO, exported)
    data = bytearray(hub.files[REPO]["main"][name])
    data[len(data) // 2] ^= 1
    hub.files[REPO]["main"][name] = bytes(data)
    code, err, folder = fetch()
    assert code == 6
    assert f"{REPO}: {name} " in err
    assert not folder.exists()
    assert list(folder.parent.glob(".pulling*")) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("pytorch_model.bin", "a pickle"), ("sub/modeling.py", "code"), ("train.pt", "a pickle")],
)
def test_pickles_and_code_are_refused_unfetched(hub, exported, fetch, name, words):
    hub.put(REPO, exported)
    hub.files[REPO]["main"][name] = b"anything"
    code, err, folder = fetch()
    assert (code, folder.exists()) == (6, False)
    assert f"{REPO} holds {name}: {words}" in err


def test_remote_code_is_refused(hub, exported, tmp_path, fetch):
    def write(folder):
        shutil.copytree(exported, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModel": "someone/else--modeling.Model"}
        (folder / "config.json").write_text(json.dumps(config))

    place(tmp_path / "forged", 4, write)
    hub.put(REPO, tmp_path / "forged")
    code, err, _ = fetch()
    assert (code, "asks for remote code (auto_map); it is refused" in err) == (6, True)


def test_weights_that_nobody_vouches_for(hub, exported, fetch):
    hub.put(REPO, exported)
    hub.files[REPO]["main"]["ema.safetensors"] = hub.files[REPO]["main"]["model.safetensors"]
    hub.files[REPO]["main"]["LICENSE"] = b"text"
    code, err, _ = fetch()
    assert code == 6
    assert f"{REPO}: it holds ema.safetensors, which its manifest does not vouch for" in err


def test_another_kind_of_repository(hub, tmp_path, fetch):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    hub.put(REPO, tmp_path / "bert")
    code, err, _ = fetch()
    assert code == 6
    assert f"{REPO} is no model of dlmkit: it has no manifest.json" in err


def test_no_such_repository(hub, fetch):
    code, err, _ = fetch(repo="someone/else")
    assert code == 5
    assert "someone/else cannot be fetched: the hub says RepositoryNotFoundError" in err
    assert "hf auth login" in err


def test_without_a_token(hub, run, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/no/such/token")
    assert main(["push", str(run), REPO]) == 5
    err = capsys.readouterr().err
    assert f"{REPO} cannot be sent: the hub says " in err
    assert "hf auth login" in err


def test_no_connection(hub, run, fetch, monkeypatch, capsys):
    hub.shutdown()
    hub.server_close()
    code, err, _ = fetch()
    assert code == 5
    assert f"{REPO} cannot be fetched: the hub cannot be reached" in err
    assert "carry the model's folder here and name it" in err
    assert main(["push", str(run), REPO]) == 5
    assert f"{REPO} cannot be sent: the hub cannot be reached" in capsys.readouterr().err


def test_a_name_that_is_none_and_a_folder_in_use(fetch, capsys):
    for repo in ("a/b/c", "", "a/..", "../b", "a/b c"):
        code, err, folder = fetch(repo=repo)
        assert (code, f"{repo!r} is no name of a repository: expected user/name" in err) == (
            2,
            True,
        )
    assert main(["pull", ""]) == 2
    assert "'' is no name of a repository" in capsys.readouterr().err
    folder.mkdir()
    (folder / "x").touch()
    code, err, _ = fetch()
    assert (code, "exists already" in err) == (2, True)


def test_every_file_of_an_export_is_fetched(exported):
    for path in exported.iterdir():
        assert any(path.match(pattern) for pattern in READ), path.name
