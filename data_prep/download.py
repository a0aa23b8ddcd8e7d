"""Files from their authors' pages: progress, resume after any interruption, checksum."""

import fcntl
import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from data_prep.errors import DataError
from data_prep.progress import progress
from data_prep.sources import file_digest

DOWNLOADS = Path("data/downloads")
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 18
BROKEN = (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)


def download(url: str, md5: str, folder: Path = DOWNLOADS) -> Path:
    """The file of `url` in `folder`, fetched unless it is there already.

    A broken transfer is taken up where it stopped, now or in a later run (kept as NAME.part). DataError if the server
    cannot be reached, makes no progress, or what it sent has another MD5, or if another process is at it.
    """
    target = folder / url.rsplit("/", 1)[-1]
    if target.exists():
        _check(target, md5, "remove it to fetch it anew")
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{target.name}.part"
    with open(part, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{part} is being fetched by another process") from None
        try:
            while not _fetch_rest(url, part):
                pass
        except DataError:
            if not part.stat().st_size:  # nothing to resume from
                part.unlink()
            raise
        try:
            _check(part, md5, "run again to fetch it anew")
        except DataError:
            part.unlink()
            raise
        part.rename(target)
    return target


def _fetch_rest(url: str, part: Path) -> bool:
    """Appends to `part` what the server sends until the connection ends; True when the file is complete."""
    have = before = part.stat().st_size
    try:
        with urllib.request.urlopen(_request(url, have), timeout=TIMEOUT) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # a server without Range sends everything again
                have = 0
            received, size = _append(response, part, have)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return True  # nothing is missing; the checksum decides
        raise DataError(f"{url}: {error.code} {error.reason}; fetch it elsewhere and give it as --source") from None
    except (*BROKEN, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        advice = "run again to resume, or fetch it elsewhere and give it as --source"
        raise DataError(f"{url}: {reason}; {advice}") from None
    except OSError as error:
        raise DataError(f"cannot write {part}: {error.strerror}") from None
    if have + received < size and have + received <= before:
        raise DataError(f"{url}: stopped at {have + received} of {size} bytes; run again to resume")
    return have + received >= size


def _request(url: str, have: int) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})


def _append(response: http.client.HTTPResponse, part: Path, have: int) -> tuple[int, int]:
    """(bytes received, size of the whole file)."""
    size = have + int(response.headers.get("Content-Length", 0))
    received = 0
    bar = progress(total=size, initial=have, desc=part.stem, unit="B", unit_scale=True)
    with open(part, "ab" if have else "wb") as file, bar:
        while chunk := _read(response):
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    return received, size


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except BROKEN:
        return b""  # a broken connection: what came counts, the caller asks for the rest


def _check(path: Path, md5: str, advice: str) -> None:
    got = file_digest(path, "md5")
    if got != md5:
        raise DataError(f"{path}: wrong checksum, MD5 {got} instead of {md5}; {advice}")
