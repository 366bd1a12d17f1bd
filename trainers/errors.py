"""Every error a training job raises, by what the operator can do about it.

TrainerError
|- SpecError         the job or the command line is wrong (`trainers.exits` has every exit code)
|- DataError         the data is missing, empty or not what was declared
|- ExportError       the model cannot be exported, or the export is not the model
|- ModelInvalid      a model that was made elsewhere cannot be served as it is
|- GateFailed        not even the reference candidate passes its quality gates
|- PublishConflict   another publisher won; run again
|- LauncherUnavailable  the service that runs jobs cannot be reached, or refuses for now
|- LeaseLost         another run of the same schedule took over while this one was silent
|- Cancelled         somebody asked for the run not to go on; `steelyard runs resume` takes that back
|- Preempted         stopped by a signal after its state was saved
|  `- Unsaved        stopped by a signal, and the store did not take the state
|- OutOfMemory       a step needs more memory than there is
|- BudgetReached     the cost cap is spent and there is nothing to export
|- Fenced            a newer attempt of this run is at work; this one ends and publishes nothing
`- HostDiffers       a checkpoint was made on other hardware or libraries; another host may do, or strict resume off
"""


class TrainerError(Exception):
    """The root: catch this at a door, never inside."""


class SpecError(TrainerError):
    """The job or the command line is wrong; the message names the field and what is allowed."""


class DataError(TrainerError):
    """The data is missing, empty, or not what the recipe declares."""


class ExportError(TrainerError):
    """The model cannot be exported, or the exported graph does not compute what the module computes."""


class ModelInvalid(TrainerError):
    """A model file is not what a gateway can serve; the message says how to make it one."""


class GateFailed(TrainerError):
    """Not even the reference candidate passes its gates."""


class PublishConflict(TrainerError):
    """Another publisher moved the model while this one worked; nothing half published remains."""


class LauncherUnavailable(TrainerError):
    """The service that runs jobs cannot be reached or refuses for now; says nothing about the jobs it runs."""


class LeaseLost(TrainerError):
    """This run was silent for longer than its lease, and another run of the same schedule holds it now."""


class Cancelled(TrainerError):
    """Somebody asked for this run not to go on; the message names who and when."""


class Preempted(TrainerError):
    """Stopped by a signal after the state was saved."""


class OutOfMemory(TrainerError):
    """A step needs more memory than there is; the same would happen again."""


class BudgetReached(TrainerError):
    """The run's cost cap is spent before there was anything to export."""


class Unsaved(Preempted):
    """Stopped by a signal, and the store did not take the state: an earlier checkpoint has to do."""


class Fenced(TrainerError):
    """A newer attempt of this run is at work: this one must end without saving or publishing anything."""


class HostDiffers(TrainerError):
    """A checkpoint was made on another device, thread count or library version, where training would go on to other weights."""
