"""The commit of a checkout is read; nothing that the checkout names is run."""

import os
import subprocess
from pathlib import Path

import pytest

from dlmkit.bench import document
from dlmkit.checkout import commit_of
from dlmkit.cli.app import main

NOBODY = {
    **os.environ,
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "nobody"),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "nobody@example.org"),
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def git(folder, *words):
    done = subprocess.run(
        ("git", *words), cwd=folder, env=NOBODY, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text("1")
    git(folder, "add", "file")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_it_is_the_commit_that_git_says(checkout):
    (checkout / "a" / "b").mkdir(parents=True)
    assert commit_of(checkout / "a" / "b") == git(checkout, "rev-parse", "HEAD")


def test_a_detached_head_packed_refs_and_a_branch_of_several_words(checkout):
    first = git(checkout, "rev-parse", "HEAD")
    git(checkout, "checkout", "-q", "-b", "a/b")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    second = git(checkout, "rev-parse", "HEAD")
    git(checkout, "pack-refs", "--all")
    assert not (checkout / ".git" / "refs" / "heads" / "a" / "b").exists()
    assert commit_of(checkout) == second != first
    git(checkout, "checkout", "-q", "--detach", first)
    assert commit_of(checkout) == first


def test_a_worktree(checkout, tmp_path):
    git(checkout, "worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "second")
    for packed in (False, True):
        if packed:
            git(checkout, "pack-refs", "--all")
        assert commit_of(tmp_path / "other") == git(tmp_path / "other", "rev-parse", "HEAD")
        assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "head", ["ref: ../../secret", "ref: refs/../../secret", "words", "", "ref: refs/heads/none"]
)
def test_a_head_that_leads_nowhere_or_elsewhere(checkout, head):
    (checkout.parent / "secret").write_text("0" * 40)
    (checkout / "secret").write_text("0" * 40)
    (checkout / ".git" / "HEAD").write_text(head)
    assert commit_of(checkout) is None


def test_refs_that_go_round_in_a_circle(checkout):
    (checkout / ".git" / "refs" / "heads" / "main").write_text("ref: refs/heads/main\n")
    assert commit_of(checkout) is None


def test_outside_of_a_checkout(tmp_path):
    assert commit_of(tmp_path) is None


def test_training_and_bench_run_no_program_of_the_folder(checkout, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(program))
    git(checkout, "config", "filter.x.clean", str(program))
    (checkout / ".gitattributes").write_text("* filter=x\n")
    os.utime(checkout / "file", (1, 1))
    monkeypatch.chdir(checkout)
    head = "network.with={width: 16, heads: 2, blocks: 1}"
    steps = ("train.steps=1", "train.validation_rows=2", "sample.steps=2", "sample.count=1")
    words = [w for override in (head, *steps, "metric=[]") for w in ("--set", override)]
    assert main(["train", "ddlm_grammar", *words]) == 0
    assert not ran.exists()
    saved = (Path("runs") / "ddlm_grammar" / "environment.json").read_text()
    subprocess.run(("git", "status"), cwd=checkout, check=True, capture_output=True)
    assert ran.exists(), "the trap is one"
    assert commit_of(checkout) in saved


def test_bench_says_the_commit_of_dlmkits_own_checkout_the_same_way(checkout, monkeypatch):
    monkeypatch.setattr(document, "__file__", str(checkout / "document.py"))
    assert document.commit_info() == {"id": commit_of(checkout), "project": "dlmkit"}
