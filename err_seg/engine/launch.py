"""Starting a program in several processes, with the options of detectron2's command line."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import resource_tracker
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.multiprocessing import ProcessExitedException, start_processes

from err_seg.config import Config, ConfigError
from err_seg.utils import heartbeat
from err_seg.utils.device import own_device
from err_seg.utils.signals import handling_stop_signals

GRACE_SECONDS = 10.0
# how long processes wait for one another in a joint operation: between two of these lies one step of training, and
# perhaps a wait for a slow disk. Longer waits, as for unequal shares of an evaluation, go through utils.heartbeat
TIMEOUT = timedelta(minutes=30)


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

    A single process is not started anew: the program runs in this one. The same holds for each process that torchrun or
    ``accelerate launch`` started.

    Args:
        program: what to run; it must be importable by name, and call :func:`join_processes` before any other work. The
            process leaves the group of processes when the program ends, for whatever reason.
        argument: what the program is called with.
        processes: how many to start on this machine.
        machines: how many machines run this same command.
        machine_rank: which of these machines this is.
        dist_url: ``tcp://<address>:<port>`` of the first machine; "auto" finds a free port, on a single machine.

    Raises:
        ConfigError: the numbers or the address do not fit together.
    """
    if processes < 1 or machines < 1 or not 0 <= machine_rank < machines:
        raise ConfigError(
            f"--num-gpus {processes} and --num-machines {machines} must be at least 1, and --machine-rank "
            f"{machine_rank} one of 0..{machines - 1}"
        )
    if "LOCAL_RANK" in os.environ or processes * machines == 1:
        status = 1
        try:
            status = program(argument)
        except RuntimeError as error:
            if not heartbeat.explains(error):
                raise
        finally:
            _leave_processes(status)
        return status
    address, port = _address(dist_url, machines)
    common = {
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes * machines),
        "LOCAL_WORLD_SIZE": str(processes),
        # otherwise every process would start a thread for each core of the machine that they share
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes))),
    }
    return _spawn(program, argument, processes, machine_rank * processes, common)


def join_processes(cfg: Config, on_loss: Callable[[str], None] | None = None) -> None:
    """Meet the other processes of :func:`launch` or torchrun, and set ``MODEL.DEVICE`` to this process's own device.

    From then on each notices when another one is lost, and ends (:mod:`err_seg.utils.heartbeat`); in one process of
    each machine, ``on_loss`` is called with a sentence, which is printed by default. A single process only takes its
    device.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    is_alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    is_cuda = torch.cuda.is_available() and cfg.MODEL.DEVICE.split(":")[0] in ("auto", "cuda")
    if is_cuda and not is_alone:
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise ConfigError(
                f"--num-gpus {os.environ.get('LOCAL_WORLD_SIZE')}: this machine has {torch.cuda.device_count()} GPUs"
            )
        cfg.MODEL.DEVICE = "cuda"  # each process gets its own GPU, whichever was named
    cfg.MODEL.DEVICE = own_device(cfg.MODEL.DEVICE)
    if is_alone:
        return
    PartialState(cpu=not is_cuda, timeout=TIMEOUT)
    heartbeat.start(on_loss or (lambda loss: print(f"error: {loss}", file=sys.stderr)))


def _spawn(program: Callable[[Any], int], argument: Any, processes: int, first: int, common: dict[str, str]) -> int:
    """Run a program in processes of ranks from ``first`` on; return the first exit status that is not 0, else 0."""
    with handling_stop_signals(signal.SIG_IGN):
        resource_tracker.ensure_running()  # this helper of Python's inherits what is ignored
    context = start_processes(_run, (program, argument, first, common), processes, join=False, start_method="spawn")

    def pass_on(signum: int, frame: object) -> None:
        for pid in context.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    with handling_stop_signals(pass_on):
        try:
            while not context.join(grace_period=GRACE_SECONDS):
                pass
        except ProcessExitedException as error:
            return 128 - error.exit_code if error.exit_code < 0 else error.exit_code
    return 0


def _run(local_rank: int, program: Callable[[Any], int], argument: Any, first: int, common: dict[str, str]) -> None:
    os.environ.update(common, LOCAL_RANK=str(local_rank), RANK=str(first + local_rank))
    raise SystemExit(launch(program, argument))


def _leave_processes(status: int) -> None:
    if not dist.is_initialized():
        return
    heartbeat.stop(failed=status != 0)
    # NCCL may wait for processes that are gone
    end = threading.Timer(GRACE_SECONDS, os._exit, (status,))
    end.daemon = True
    end.start()
    dist.destroy_process_group()
    end.cancel()


def _address(dist_url: str, machines: int) -> tuple[str, str]:
    if dist_url == "auto" and machines == 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return "127.0.0.1", str(probe.getsockname()[1])
    address, _, port = dist_url.removeprefix("tcp://").rpartition(":")
    if not address or not port.isdigit():
        raise ConfigError(f"--dist-url must be like tcp://192.168.0.1:29500, the first machine's, not {dist_url!r}")
    return address, port
