"""Unfinished folders: swept when nobody can be at work in them, and only then."""

import multiprocessing

from dlmkit import folders

FORK = multiprocessing.get_context("fork")


def left(parent, name):
    (parent / name).mkdir()
    (parent / name / "half").write_text("x")
    return parent / name


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    parent = tmp_path / "a" / "b"
    parent.mkdir(parents=True)
    mine, other, plain = (left(parent, n) for n in (".saving-x-1", ".saving-y-1", "x"))
    with folders.at_work(parent, ".saving-x-"):
        assert not mine.exists()
    assert other.exists()
    assert plain.exists()


def test_the_folder_of_a_process_at_work_stays(tmp_path):
    began, go_on = FORK.Event(), FORK.Event()

    def worker():
        with folders.at_work(tmp_path, ".saving-x-"):
            left(tmp_path, ".saving-x-1")
            began.set()
            assert go_on.wait(60)

    process = FORK.Process(target=worker)
    process.start()
    assert began.wait(60)
    with folders.at_work(tmp_path, ".saving-x-"):
        assert (tmp_path / ".saving-x-1" / "half").is_file()
    go_on.set()
    process.join(60)
    assert process.exitcode == 0
    with folders.at_work(tmp_path, ".saving-x-"):
        assert not (tmp_path / ".saving-x-1").exists()


def test_the_folder_above_is_made(tmp_path):
    with folders.at_work(tmp_path / "new" / "er", ".x-"):
        assert (tmp_path / "new" / "er").is_dir()
