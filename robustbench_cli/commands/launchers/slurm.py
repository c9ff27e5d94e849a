"""Jobs in the queue of a Slurm cluster, through submitit (https://github.com/facebookincubator/submitit)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from robustbench_cli.commands.job_runner import run_job
from robustbench_cli.commands.launchers import LAUNCHERS, Launcher, StartedJob, StartJob
from robustbench_cli.commands.study_jobs import Job
from robustbench_cli.core.errors import UserError, install_command

Some = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class _Submitted:
    """A job in the queue, with its failure to run as a line like any other."""

    job: StartedJob

    def done(self) -> bool:
        return self.job.done()

    def result(self) -> str:
        try:
            return self.job.result()
        except Exception as error:  # cancelled, out of time or of memory, or the node died
            lines = str(error).strip().splitlines()
            return f"the cluster ended it: {lines[-1] if lines else type(error).__name__}"


@LAUNCHERS.register("slurm")
@dataclass(frozen=True, kw_only=True)
class SlurmLauncher(Launcher):
    """Submit jobs to Slurm; the results folder must be one that all nodes share."""

    partition: str = ""
    """The partition; empty: Slurm's default."""
    account: str = ""
    """The account that is charged; empty: Slurm's default."""
    minutes: Some = 1440
    """The time limit of a job; one that it ends goes on when the study is run again."""
    cpus: Some = 1
    """Cores, and threads, of a job."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of a job."""
    memory: Some = 8
    """Memory of a job, in GB."""
    cluster: Literal["slurm", "local"] = "slurm"
    """local: submitit's own processes on this machine, to try a study out."""

    @contextmanager
    def opened(self, workers: int, folder: Path) -> Iterator[StartJob]:
        try:
            import submitit
        except ImportError:
            raise UserError(
                f"--launcher slurm needs submitit: {install_command('slurm')}"
            ) from None
        try:
            executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=self.cluster)
        except RuntimeError as error:  # there is no srun
            raise UserError(f"--launcher slurm: {error}") from None
        queue = {"slurm_partition": self.partition, "slurm_account": self.account}
        executor.update_parameters(
            name="advbench",
            timeout_min=self.minutes,
            cpus_per_task=self.cpus,
            gpus_per_node=self.gpus,
            mem_gb=self.memory,
            **{name: value for name, value in queue.items() if value},
        )
        submitted = []

        def start(job: Job) -> StartedJob:
            submitted.append(executor.submit(run_job, job, threads=self.cpus))
            return _Submitted(submitted[-1])

        try:
            yield start
        finally:
            for each in submitted:
                if not each.done():
                    each.cancel()
