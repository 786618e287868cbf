"""The program of a process that `launch` starts: it joins the others and fits the same model."""

import os
import pickle
import sys
import threading
import traceback
from typing import NoReturn

from torch import distributed as dist

from ..errors import PushforwardError
from .fit import run_request
from .launch import HOME, PATIENCE
from .processes import dist_backends


def _run_worker() -> NoReturn:
    pipe = sys.stdin.buffer
    length = int.from_bytes(pipe.read(8), "big")
    request, port = pickle.loads(pipe.read(length))  # noqa: S301 our own
    threading.Thread(target=lambda: pipe.read() or os._exit(1), daemon=True).start()
    try:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = dist.TCPStore(HOME, port, None, False, PATIENCE, wait_for_workers=False)
        store.set(str(rank), "here")
        dist.init_process_group(dist_backends(), store=store, rank=rank, world_size=count)
        run_request(request)
    except KeyboardInterrupt as error:
        os._exit(getattr(error, "code", 130))
    except PushforwardError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(error.code)
    except BaseException:
        traceback.print_exc()
        os._exit(PushforwardError.code)
    os._exit(0)


if __name__ == "__main__":
    _run_worker()
