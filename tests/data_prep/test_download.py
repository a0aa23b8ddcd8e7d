"""Downloads from a server on this machine that can break off, refuse ranges or send something else."""

import fcntl
import gzip
import hashlib
import http.server
import shutil
import threading

import numpy as np
import pytest
from test_fashion_mnist import idx

from data_prep import fashion_mnist
from data_prep.download import download
from data_prep.errors import DataError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Sends `files`, at most `break_after` bytes in one response; counts requests and bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.break_after = len(CONTENT)
        self.ranges = True
        self.files = {"set.tar.gz": CONTENT}
        self.requests: list[str | None] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/set.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers["Range"]
        self.server.requests.append(wanted)
        content = self.server.files.get(self.path[1:])
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if content is None:
            self.send_error(404)
        elif first >= len(content):
            self.send_error(416)
        else:
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            self.server.sent += len(part := content[first : first + self.server.break_after])
            self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_whole_file_once(server, tmp_path):
    path = download(server.url, MD5, tmp_path / "new")
    assert path == tmp_path / "new/set.tar.gz" and path.read_bytes() == CONTENT
    assert download(server.url, MD5, tmp_path / "new") == path
    assert server.requests == [None]


def test_broken_connections_are_taken_up(server, tmp_path):
    server.break_after = 1_000_001
    assert download(server.url, MD5, tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000001-", "bytes=2000002-"] and server.sent == len(CONTENT)


def test_resumes_what_an_earlier_run_left(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT[:2_500_000])
    assert download(server.url, MD5, tmp_path).read_bytes() == CONTENT
    assert server.requests == ["bytes=2500000-"] and server.sent == 500_000
    assert [path.name for path in tmp_path.iterdir()] == ["set.tar.gz"]


def test_everything_was_there_but_the_last_step(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT)
    assert download(server.url, MD5, tmp_path).read_bytes() == CONTENT
    assert server.sent == 0


def test_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "set.tar.gz.part").write_bytes(b"x" * 1000)
    assert download(server.url, MD5, tmp_path).read_bytes() == CONTENT


def test_server_without_ranges_that_breaks_off_is_given_up(server, tmp_path):
    server.ranges, server.break_after = False, 1_000_001
    with pytest.raises(DataError, match="stopped at 1000001 of 3000000 bytes"):
        download(server.url, MD5, tmp_path)
    assert len(server.requests) == 2


def test_two_downloads_of_one_file_do_not_meet(server, tmp_path):
    with open(tmp_path / "set.tar.gz.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="set.tar.gz.part is being fetched by another process"):
            download(server.url, MD5, tmp_path)
    assert server.requests == []


def test_no_progress_ends_with_advice(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT[:1000])
    server.break_after = 0
    with pytest.raises(DataError, match="stopped at 1000 of 3000000 bytes; run again to resume"):
        download(server.url, MD5, tmp_path)
    assert (tmp_path / "set.tar.gz.part").stat().st_size == 1000


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    server.files["set.tar.gz"] = CONTENT[:-1] + b"?"
    with pytest.raises(DataError, match=f"wrong checksum, MD5 .* instead of {MD5}"):
        download(server.url, MD5, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_earlier_download_is_named(server, tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="set.tar.gz: wrong checksum.*remove it"):
        download(server.url, MD5, tmp_path)
    assert server.requests == [] and (tmp_path / "set.tar.gz").read_bytes() == b"damaged"


def test_missing_file_and_missing_server(server, tmp_path):
    with pytest.raises(DataError, match="other: 404 .*--source"):
        download(server.url.replace("set.tar.gz", "other"), MD5, tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="Connection refused.*--source"):
        download(server.url, MD5, tmp_path)
    assert not list(tmp_path.iterdir())


def test_full_disk(server, tmp_path):
    (tmp_path / "set.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot write .*set.tar.gz.part: No space left on device"):
        download(server.url, MD5, tmp_path)


def test_command_downloads_and_recognises_its_result(server, tmp_path, monkeypatch, capsys):
    """Fashion-MNIST from its page; a second run sees from the checksums that nothing needs fetching."""
    monkeypatch.chdir(tmp_path)
    files = {}
    for count, split in ((40, "train"), (20, "t10k")):
        files[f"{split}-images-idx3-ubyte.gz"] = gzip.compress(idx(np.zeros((count, 28, 28), np.uint8)))
        files[f"{split}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count, dtype=np.uint8) % 10))
    server.files = files
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(fashion_mnist, "PAGE", server.url.rsplit("/", 1)[0])
    monkeypatch.setattr(fashion_mnist, "FILES", {name: hashlib.md5(data).hexdigest() for name, data in files.items()})
    assert fashion_mnist.main([]) == 0
    assert len(server.requests) == 4 and (tmp_path / "data/fashion-mnist/dataset.json").is_file()
    shutil.rmtree(tmp_path / "data/downloads")
    assert fashion_mnist.main([]) == 0
    assert len(server.requests) == 4 and "already prepared" in capsys.readouterr().out
