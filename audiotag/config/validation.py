"""Checks across the sections of an experiment."""


from pydantic_core import PydanticCustomError

from audiotag.config import signatures
from audiotag.config.components import options

MONITORED = ("val_lwlrap", "val_loss", "lwlrap", "loss")  # what every epoch logs


def _check_names(stage, seen, where):
    """Refuses names of stages that stand twice or lead nowhere; `seen` are those of the stages before."""
    if stage.name in seen:
        raise _at(f"{where}.name", f"two stages are called {stage.name!r}. Give each its own name.")
    if stage.start_from is not None and stage.start_from not in seen:
        hint = signatures.nearest(stage.start_from, seen)
        raise _at(
            f"{where}.start_from",
            f"no earlier stage is called {stage.start_from!r}. {hint}Accepted: {', '.join(seen) or 'null'}.",
        )
    seen.append(stage.name)


def _check_callbacks(stage, where):
    """Refuses callbacks that stand twice or look at what is not there."""
    names = [callback.name for callback in stage.callbacks]
    for number, callback in enumerate(stage.callbacks):
        here = f"{where}.callbacks[{number}]"
        if callback.name in names[:number]:
            raise _at(here, f"{callback.name!r} stands twice. Name each callback once.")
        for key, accepted in (("monitor", MONITORED), ("mode", ("auto", "max", "min"))):
            value = getattr(callback, key, accepted[0])
            if value not in accepted:
                hint = signatures.nearest(value, accepted)
                raise _at(f"{here}.{key}", f"there is no {value!r}. {hint}Accepted: {', '.join(accepted)}.")
        judging = callback.name in ("EarlyStopping", "ModelCheckpoint") and not callback.monitor.startswith("val_")
        if stage.validation_freq > 1 and judging:
            raise _at(f"{here}.monitor", "may choose an epoch that is not judged. Expected val_lwlrap or val_loss.")


def _check_clips(stage, where):
    """Refuses shares or a loss of other clips than the stage hears, and a last epoch that nobody judges."""
    shares = stage.shares or dict.fromkeys(stage.subset, 1.0)
    if set(shares) != set(stage.subset) or min(shares.values()) <= 0:
        raise _at(f"{where}.shares", f"expected a number above 0 for each of: {', '.join(stage.subset)}.")
    if stage.noisy_loss is not None and "noisy" not in stage.subset:
        raise _at(f"{where}.noisy_loss", 'no noisy clip is heard. Add "noisy" to the subset, or leave it out.')
    if stage.epochs % stage.validation_freq:
        raise _at(
            f"{where}.validation_freq",
            f"the last of {stage.epochs} epochs must be judged. Expected one of their divisors.",
        )


def _check_select(experiment, stage, earlier, where):
    """Refuses a selection among clips that the stage does not hear, or by models that heard them or come later."""
    if stage.select is None:
        return
    for name in stage.select.scored_by:
        if name not in earlier:
            hint = signatures.nearest(name, earlier)
            raise _at(
                f"{where}.select.scored_by",
                f"no earlier stage is called {name!r}. {hint}Accepted: {', '.join(earlier) or 'none'}.",
            )
    for key, value in options(stage.select.rule).items():
        if not 0 <= value <= 1:
            raise _at(f"{where}.select.rule.{key}", f"is {value}. Expected a number from 0 to 1.")
    if "noisy" not in stage.subset:
        raise _at(f"{where}.select", 'chooses among noisy clips. Add "noisy" to the subset.')
    every = set(range(experiment.folds.count))
    if experiment.folds.noisy and set(experiment.folds.held_out) != every:
        raise _at(
            "folds.held_out",
            f"every fold's model scores the noisy clips of its fold. Expected all of {sorted(every)}.",
        )
    if stage.select.rounds > 1 and not experiment.folds.noisy:
        raise _at(
            f"{where}.select.rounds",
            'from the second round on, a model would score clips that it heard. Add "noisy": true to the folds.',
        )


def _check_flips(experiment):
    """Refuses flips that are heard and not learned, or learned in one stage and not in the next."""
    in_picture, in_augment, in_stages = (
        sum(part.name == "flip_labels" for part in parts)
        for parts in (
            experiment.picture,
            experiment.augment,
            [part for stage in experiment.stages for part in stage.augment or ()],
        )
    )
    chosen = {index: stage.select for index, stage in enumerate(experiment.stages) if stage.select is not None}
    hearings = {f"stages[{index}].select.predict": select.predict for index, select in chosen.items()}
    for where, hearing in {"predict": experiment.predict, **hearings}.items():
        if hearing is not None and hearing.flips and not (in_picture or in_augment):
            raise _at(f"{where}.flips", 'needs flips as labels. Add {"name": "flip_labels"} to the picture.')
    if in_picture + in_augment > 1:
        raise _at("picture", "flip_labels may stand in an experiment once.")
    own = any(stage.augment is not None for stage in experiment.stages)
    if in_stages or (in_augment and own):
        raise _at(
            "augment",
            "flip_labels gives the network four times as many answers, so every stage must have it. "
            "Put it into the picture.",
        )
    if in_picture or in_augment:
        if experiment.noisy_head:
            raise _at("noisy_head", "flip_labels makes other heads. Leave out one of them.")
        for index, stage in enumerate(experiment.stages):
            if stage.noisy_loss is not None:
                raise _at(f"stages[{index}].noisy_loss", "flip_labels makes heads of its own. Leave out one of them.")


def _check_unions(experiment):
    """Refuses mixtures that carry every label whole where each kind of clip has its share of the loss."""
    apart = experiment.noisy_head or any(stage.noisy_loss is not None for stage in experiment.stages)
    lists = {key: getattr(experiment, key) for key in ("waveform", "picture", "augment")}
    lists |= {f"stages[{index}].augment": stage.augment or () for index, stage in enumerate(experiment.stages)}
    for key, parts in lists.items():
        for index, part in enumerate(parts):
            if apart and getattr(part, "labels", None) == "union":
                raise _at(
                    f"{key}[{index}].labels",
                    '"union" counts both clips whole, where noisy_head and noisy_loss weigh each kind by its share. '
                    'Expected "weighted".',
                )


def _check_steps(stage, where):
    """Refuses parts of a stage that would move the same number twice, or a number that is not there."""
    if stage.schedule is not None and any(callback.name == "ReduceLROnPlateau" for callback in stage.callbacks):
        raise _at(
            f"{where}.schedule",
            f"{stage.schedule.name} and ReduceLROnPlateau both move the learning rate. Leave out one of them.",
        )
    if getattr(stage.schedule, "beta_1", None) is not None and not hasattr(stage.optimizer, "beta_1"):
        raise _at(
            f"{where}.schedule",
            f'{stage.schedule.name} moves beta_1, which {stage.optimizer.name} has not. Name adam or adamw, or add '
            '"beta_1": null.',
        )
    if stage.decayed_weights != "all" and not stage.optimizer.weight_decay:
        raise _at(f"{where}.decayed_weights", "nothing decays. Give the optimizer a weight_decay.")


def _at(where, what):
    return PydanticCustomError("at", "{where}: {what}", {"where": where, "what": what})
