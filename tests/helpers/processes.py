"""Processes that tests start, hide or kill."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil

from tests.helpers.training import command, environment


def kill_a_loader_process(signum=signal.SIGKILL):
    children = psutil.Process().children()
    workers = [c for c in children if c.name().startswith("pt_data_worker") and c.status() != psutil.STATUS_ZOMBIE]
    worker = max(workers, key=psutil.Process.create_time)  # an earlier loader's may still be ending
    worker.send_signal(signum)
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:  # the news come here, or some time after
        time.sleep(0.01)


def start_machines(cfg, tmp_path, *arguments):
    """Start the same training on two machines, the second one first; return their processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"

    def start(rank):
        place = ("--num-machines", "2", "--machine-rank", str(rank), "--dist-url", url)
        line = command(cfg, tmp_path / f"machine{rank}.yaml", *place, *arguments)
        return subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    second = start(1)
    return start(0), second


def join(machines):
    """Wait for the machines; return their exit statuses and what they said."""
    told = [machine.communicate(timeout=300)[1] for machine in machines]
    return [machine.returncode for machine in machines], told


def hide_detectron2(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2" or name.startswith("err_seg.d2")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)


def run_script(script, *arguments, folder=None, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("ERR_SEG_VENV", "PYTHON")}
    command = ["bash", str(script), *map(str, arguments)]
    return subprocess.run(command, env={**environment, **variables}, cwd=folder, capture_output=True, text=True)
