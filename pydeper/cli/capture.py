"""`pydeper capture`: a page on which a person records how they look at pictures and what they say about them."""

import argparse
import contextlib
import secrets
import shlex
import socket
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydeper.cli.command import add_command, add_model
from pydeper.cli.progress import progress_bar
from pydeper.errors import InvalidArgumentError
from pydeper.untrusted import is_loopback

if TYPE_CHECKING:
    from pydeper.capture.session import CaptureSession

_PORTS = range(49152, 65536)  # for anybody's use (RFC 6335)
_SETTINGS = (
    "mode", "blur", "radius", "time_limit", "order", "seed", "instructions", "language", "dictation", "keep_back",
)  # fmt: skip


def add_to(commands: Any) -> None:
    """Adds the sub-command."""
    capture = add_command(
        commands, "capture", run, "record yourself: a page in the browser shows pictures, and makes your persona"
    )
    capture.add_argument("images", type=Path, metavar="IMAGES", help="folder of the pictures to describe")
    capture.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE.jsonl",
        help="the samples; an earlier session of the same pictures goes on",
    )
    capture.add_argument("--subject", metavar="NAME", help="who is recorded (default: FILE)")
    # What is not given is as in the session that goes on, so no option has a default here.
    capture.add_argument(
        "--mode",
        choices=("viewport", "trace"),
        help="a blurred picture, sharp around the pointer (default), or the plain one",
    )
    capture.add_argument("--blur", type=float, metavar="PX", help="outside the viewport, in CSS pixels (default: 14)")
    capture.add_argument(
        "--radius", type=float, metavar="X", help="of the viewport, of the picture's shorter side (default: 0.12)"
    )
    capture.add_argument("--time-limit", type=float, metavar="SECONDS", help="for each picture (default: none)")
    capture.add_argument("--order", choices=("name", "random"), help="of the pictures (default: name)")
    capture.add_argument("--seed", type=int, metavar="N", help="of the random order (default: 0)")
    capture.add_argument("--instructions", metavar="TEXT", help="in place of the page's own")
    capture.add_argument("--language", metavar="TAG", help="of the page, such as de (default: en)")
    capture.add_argument(
        "--keep-back", type=int, metavar="N", help="pictures for the persona to describe at the end (default: 1)"
    )
    capture.add_argument(
        "--no-dictation",
        dest="dictation",
        action="store_false",
        default=None,
        help="do not offer the browser's dictation, which may send sound to the browser's maker",
    )
    capture.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen on; beyond this computer, the first visit needs a token (default: %(default)s)",
    )
    capture.add_argument(
        "--port", type=int, metavar="N", help="default: the same for this session every time, where it is free"
    )
    add_model(capture)
    capture.add_argument("--no-open", dest="open", action="store_false", help="do not open the browser")


def run(options: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C, then says where the files are."""
    try:
        import uvicorn

        from pydeper.capture.app import make_app
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library not in ("starlette", "uvicorn"):
            raise
        raise InvalidArgumentError(f'capture needs {library}: pip install "pydeper[cpu,capture]"') from error
    from pydeper.bundle.default import default_model_name
    from pydeper.capture.opening import open_session
    from pydeper.capture.pictures import find_pictures

    model = options.model or default_model_name()
    with progress_bar("pictures") as advance:
        pictures, damaged = find_pictures(options.images, progress=advance)
    for picture in damaged:
        print(f"not shown: {picture.name}: {picture.reason}")
    changes = {name: value for name in _SETTINGS if (value := getattr(options, name)) is not None}
    session = open_session(
        options.images, pictures, options.out, model=model, subject=options.subject, settings=changes
    )
    try:
        with _listening(options.host, options.port, session.about.session) as listener:
            token = None if is_loopback(options.host) else secrets.token_urlsafe(24)
            address = _address(options.host, listener.getsockname()[1], token)
            _announce(session, address, options.host, token, browser=options.open)
            app = make_app(session, damaged, model=model, host=options.host, token=token)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    lifespan="off",
                    ws="none",
                    log_config=None,
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    timeout_graceful_shutdown=5,
                )
            )
            with contextlib.suppress(KeyboardInterrupt):  # how a session ends
                server.run(sockets=[listener])
    finally:
        session.close()
    _say_where(session)
    return 0


def _listening(host: str, port: int | None, session: str) -> socket.socket:
    """Takes a port: by default one that the session has every time, for browsers keep drafts by the address."""
    if port is None:
        usual = _PORTS.start + zlib.crc32(session.encode()) % len(_PORTS)
        with contextlib.suppress(InvalidArgumentError):
            return _listening(host, usual, session)
        port = 0
    try:
        if not 0 <= port < 2**16:
            raise OverflowError("a port is from 0 to 65535")
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InvalidArgumentError(
            f"cannot listen on {host}, port {port} ({error}); choose another --host or --port (0: one that is free)"
        ) from error


def _address(host: str, port: int, token: str | None) -> str:
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(
        host, f"[{host}]" if ":" in host else host
    )
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def _announce(session: "CaptureSession", address: str, host: str, token: str | None, *, browser: bool) -> None:
    done = len(session.samples)
    print(f"{session.about.subject}: {done} of {len(session.pictures)} pictures recorded")
    if token is not None:
        print(
            f"Everybody who can reach {host} can reach this page; the address has a token that is good for one visit "
            "and opens the pictures, the recordings and the persona. http is not encrypted: use it only in a network "
            "that you trust, or through a tunnel."
        )
    print(f"Open {address}\nEnd with Ctrl-C; the same command goes on later.", flush=True)
    if browser and token is None:
        import webbrowser

        # A browser in the terminal does not come back; and a visit from here would use up a token.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _say_where(session: "CaptureSession") -> None:
    if session.deleted:
        print("\nEverything was deleted.")
        return
    files = session.files
    print(f"\n{files.journal}: the recordings")
    if files.samples.exists():
        print(f"{files.samples}: {len(session.samples)} samples")
    if files.persona.exists():
        print(f"{files.persona}: the persona")
        if session.consent is not None and session.consent.publish:
            words = ["pydeper", "persona", "push", str(files.persona), "ORG/NAME", "--consent"]
            print(f'Publish it: {shlex.join(words)} "{session.consent.statement}"')
