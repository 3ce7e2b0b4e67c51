"""Starting a program in several processes, as detectron2's command line asks for them."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import torch
from accelerate import PartialState
from fvcore.common.config import CfgNode
from torch.multiprocessing import ProcessExitedException, start_processes

from err_seg.config import ConfigError
from err_seg.device import resolve_device

GRACE_SECONDS = 10.0


def launch(
    program: Callable[[Any], int],
    argument: Any,
    *,
    processes: int = 1,
    machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> int:
    """Run ``program(argument)`` in several processes and return the first exit status that is not 0, else 0.

    A single process is this one; so is each of the processes that torchrun or ``accelerate launch`` started.

    Args:
        program: what to run; it must be importable by name, and call :func:`join_processes` before any other work.
        argument: what to hand to it.
        processes: how many on this machine.
        machines: how many machines run this same command.
        machine_rank: which of them this is.
        dist_url: ``tcp://<address>:<port>`` of the first machine; "auto" finds a port where there is one machine.

    Raises:
        ConfigError: numbers or address that do not fit together.
    """
    if processes < 1 or machines < 1 or not 0 <= machine_rank < machines:
        raise ConfigError(
            f"--num-gpus {processes} and --num-machines {machines} must be at least 1, and --machine-rank "
            f"{machine_rank} one of 0..{machines - 1}"
        )
    if "LOCAL_RANK" in os.environ or processes * machines == 1:
        return program(argument)
    address, port = _address(dist_url, machines)
    common = {
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes * machines),
        "LOCAL_WORLD_SIZE": str(processes),
        # processes that share a machine's processor would otherwise each start a thread for all of it
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes))),
    }
    context = start_processes(
        _run, (program, argument, common, machine_rank * processes), processes, join=False, start_method="spawn"
    )
    handlers = _pass_signals_on(context.pids())
    try:
        while not context.join(grace_period=GRACE_SECONDS):
            pass
    except ProcessExitedException as error:
        return 128 - error.exit_code if error.exit_code < 0 else error.exit_code
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    return 0


def join_processes(cfg: CfgNode) -> None:
    """Meet the other processes of :func:`launch` or torchrun, and set ``MODEL.DEVICE`` to this process's own device.

    Does nothing in a single process.

    Raises:
        ConfigError: fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return
    device, local_rank = resolve_device(cfg.MODEL.DEVICE), int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"--num-gpus {os.environ.get('LOCAL_WORLD_SIZE')}: this machine has {torch.cuda.device_count()} GPUs"
            )
        cfg.MODEL.DEVICE = f"cuda:{local_rank}"
    PartialState(cpu=device.type == "cpu")


def _run(local_rank: int, program: Callable[[Any], int], argument: Any, common: dict[str, str], first: int) -> None:
    os.environ.update(common, LOCAL_RANK=str(local_rank), RANK=str(first + local_rank))
    status = program(argument)
    if status:
        raise SystemExit(status)


def _address(dist_url: str, machines: int) -> tuple[str, str]:
    if dist_url == "auto" and machines == 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return "127.0.0.1", str(probe.getsockname()[1])
    address, _, port = dist_url.removeprefix("tcp://").rpartition(":")
    if not address or not port.isdigit():
        raise ConfigError(f"--dist-url must be like tcp://192.168.0.1:29500, the first machine's, not {dist_url!r}")
    return address, port


def _pass_signals_on(pids: list[int]) -> dict[int, Any]:
    """Send SIGTERM and Ctrl-C on to other processes, which know what to save; return the handlers replaced."""
    if threading.current_thread() is not threading.main_thread():
        return {}

    def pass_on(signum: int, frame: object) -> None:
        for pid in pids:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue

    return {signum: signal.signal(signum, pass_on) for signum in (signal.SIGTERM, signal.SIGINT)}
