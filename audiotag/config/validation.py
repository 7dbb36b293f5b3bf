"""Checks across the sections of an experiment.

Each names the place, what is wrong and what to do.
"""

from typing import Any

from pydantic_core import PydanticCustomError

from audiotag.config import signatures
from audiotag.config.components import CustomComponent, options

# Networks with published weights, and the front end of their training.
PRETRAINED = {"yamnet": "yamnet_mel", "mn04": "efficientat_mel", "mn10": "efficientat_mel"}


def check_experiment(experiment: Any) -> None:
    """Refuses combinations of settings that contradict each other.

    Args:
        experiment: An `Experiment`.

    Raises:
        PydanticCustomError: Two settings contradict each other.
    """
    _check_metrics(experiment)
    logged = logged_values(experiment)
    earlier: list[str] = []
    for index, stage in enumerate(experiment.stages):
        where = f"stages[{index}]"
        _check_names(stage, earlier, where)
        _check_callbacks(experiment, stage, logged, where)
        _check_clips(experiment, stage, where)
        _check_learning_rate(stage, where)
        _check_select(experiment, stage, earlier, where)
        _check_embeddings(experiment, stage, where)
        _check_task(experiment, stage, where)
        earlier.append(stage.name)
    if experiment.noisy_head and not any(experiment.noisy_subsets(stage) for stage in experiment.stages):
        raise error_at("noisy_head", f"no stage trains on noisy clips. {_add_noisy(experiment)}, or leave it out.")
    _check_flips(experiment)
    _check_crops(experiment)
    _check_unions(experiment)
    _check_pretrained(experiment)
    if experiment.jit_compile and experiment.deterministic:
        raise error_at("jit_compile", 'TensorFlow does not compile deterministic runs. Add "deterministic": false.')
    if experiment.validation is not None and experiment.validation.folds is not None:
        _check_folds(experiment.validation.folds)


def refuse_test(subset: str) -> str:
    """Refuses the subset of test clips, which a run never sees before its evaluation.

    Raises:
        PydanticCustomError: The subset is "test".
    """
    if subset == "test":
        what = "test clips only evaluate: nothing trains on them or chooses by them. Name another subset."
        raise PydanticCustomError("complete_message", "{what}", {"what": what})
    return subset


def check_kind_of_validation(validation: Any) -> None:
    """Refuses a validation of no kind or of two.

    Args:
        validation: A `Validation`.

    Raises:
        PydanticCustomError: It is not exactly one of folds, subset and fraction.
    """
    kinds = [key for key in ("folds", "subset", "fraction") if getattr(validation, key) is not None]
    if len(kinds) != 1:
        what = (
            f"found {' and '.join(kinds) or 'nothing'}. Expected one of folds, subset and fraction; or null for "
            "validation itself, to train on all clips."
        )
        raise PydanticCustomError("complete_message", "{what}", {"what": what})
    if validation.seed is not None and validation.fraction is None:
        what = f"seed is for a fraction, not for {kinds[0]}. Leave it out."
        raise PydanticCustomError("complete_message", "{what}", {"what": what})


def _add_noisy(experiment):
    """What to do if there are no noisy clips."""
    return f"Add a subset that is not in trusted ({', '.join(experiment.trusted)})"


def check_start_from(source: Any) -> None:
    """Refuses weights from outside the run without a single source.

    A stage of a file is refused, too.

    Args:
        source: A `StartFrom`.

    Raises:
        PydanticCustomError: Says what the section may hold.
    """
    expected = 'Expected {"run": "runs/a", "stage": "noisy"} or {"weights": "file.weights.h5"}.'
    found = [key for key in ("run", "weights") if getattr(source, key) is not None]
    if len(found) != 1:
        what = f"{'both run and weights are' if found else 'neither run nor weights is'} given. {expected}"
        raise PydanticCustomError("complete_message", "{what}", {"what": what})
    if source.weights is not None and source.stage is not None:
        what = f"a file of weights has no stages. {expected}"
        raise PydanticCustomError("complete_message", "{what}", {"what": what})


def error_at(where: str, what: str) -> PydanticCustomError:
    """A validation error that `loading` prints as "PLACE: SENTENCE"."""
    return PydanticCustomError("complete_message", "{where}: {what}", {"where": where, "what": what})


def logged_values(experiment: Any) -> list[str]:
    """What an epoch logs: the loss and metrics.

    Those of the validation clips, if there are any, come first. A metric that stores all clips, `num_clips` of them,
    is logged for validation clips only.

    Args:
        experiment: An `Experiment`.
    """
    names = [log_name(metric) for metric in experiment.metrics]
    training = [log_name(metric) for metric in experiment.metrics if not is_validated_only(metric)]
    validated = [f"val_{name}" for name in (*names, "loss")] if experiment.validation is not None else []
    return [*validated, *training, "loss"]


def default_monitor(experiment: Any) -> str:
    """The first metric, of the validation clips if there are any.

    Args:
        experiment: An `Experiment`.
    """
    return logged_values(experiment)[0]


def log_name(metric: Any) -> str:
    """The name under which a metric of an experiment is logged.

    That of "package.module:Name" is Name.
    """
    return metric.name.rpartition(":")[2]


def is_validated_only(metric: Any) -> bool:
    """Whether a metric of an experiment is computed for validation clips only."""
    if isinstance(metric, CustomComponent):
        return False
    return "num_clips" in signatures.signature("audiotag.metrics", "METRICS", metric.name).parameters


def _check_metrics(experiment):
    """Refuses metrics that are listed twice and a monitor that none of them provides."""
    names = [log_name(metric) for metric in experiment.metrics]
    for number, name in enumerate(names):
        if name == "loss" or name.startswith("val_"):
            raise error_at(f"metrics[{number}]", f"a metric cannot be called {name!r}. Rename it.")
        if name in names[:number]:
            raise error_at(f"metrics[{number}]", f"{name!r} is listed twice. Name each metric once.")
    if experiment.validation is None:
        for number, metric in enumerate(experiment.metrics):
            if is_validated_only(metric):
                what = f'{metric.name} needs validation clips, and "validation" is null. Name another metric.'
                raise error_at(f"metrics[{number}]", what)
    accepted = logged_values(experiment)
    if experiment.validation is not None:
        accepted = [name for name in accepted if name.startswith("val_")]
    if experiment.monitored not in accepted:
        raise error_at("monitor", _not_logged(experiment.monitored, accepted))


def _not_logged(monitor, accepted):
    """The sentence for a monitor that no metric provides."""
    metric = str(monitor).removeprefix("val_")
    if monitor != metric and "loss" in accepted and "val_loss" not in accepted:
        without = f'"validation" is null, so no clip validates and there is no {monitor}'
        return f"{without}. Expected {' or '.join(accepted)}."
    if f"val_{metric}" not in accepted and metric in signatures.component_names("audiotag.metrics", "METRICS"):
        return f'there is no {monitor!r}. Add {{"name": "{metric}"}} to metrics. Accepted: {", ".join(accepted)}.'
    return f"there is no {monitor!r}. {signatures.nearest(monitor, accepted)}Accepted: {', '.join(accepted)}."


def _check_names(stage, earlier, where):
    if stage.name in earlier:
        raise error_at(f"{where}.name", f"two stages are called {stage.name!r}. Give each its own name.")
    if isinstance(stage.start_from, str) and stage.start_from not in earlier:
        hint = signatures.nearest(stage.start_from, earlier)
        raise error_at(
            f"{where}.start_from",
            f"no earlier stage is called {stage.start_from!r}. {hint}Accepted: {', '.join(earlier) or 'null'}.",
        )


def _check_callbacks(experiment, stage, logged, where):
    """Refuses callbacks that are listed twice or monitor a value that is not logged."""
    names = [callback.name for callback in stage.callbacks]
    for number, callback in enumerate(stage.callbacks):
        here = f"{where}.callbacks[{number}]"
        if callback.name in names[:number]:
            raise error_at(here, f"{callback.name!r} is listed twice. Name each callback once.")
        if isinstance(callback, CustomComponent):
            monitor = getattr(callback, "monitor", None)
            if callback.name.startswith("keras.") and isinstance(monitor, str) and monitor not in logged:
                raise error_at(f"{here}.monitor", _not_logged(monitor, logged))
            continue
        monitor = getattr(callback, "monitor", None) or experiment.monitored
        if monitor not in logged:
            raise error_at(f"{here}.monitor", _not_logged(monitor, logged))
        mode, modes = getattr(callback, "mode", "auto"), ("auto", "max", "min")
        if mode not in modes:
            hint = signatures.nearest(mode, modes)
            raise error_at(f"{here}.mode", f"there is no {mode!r}. {hint}Accepted: {', '.join(modes)}.")
        chooses_epoch = callback.name in ("EarlyStopping", "ModelCheckpoint")
        if stage.validation_freq > 1 and chooses_epoch and not monitor.startswith("val_"):
            accepted = [name for name in logged if name.startswith("val_")]
            raise error_at(
                f"{here}.monitor",
                "may select an epoch that is not validated, as validation_freq is above 1. Expected "
                f"{', '.join(accepted[:-1])} or {accepted[-1]}.",
            )


def _check_clips(experiment, stage, where):
    """Refuses clips that validate, settings for clips that the stage does not use, and epochs without validation."""
    weights = stage.subset_sampling_weights or dict.fromkeys(stage.subset, 1.0)
    if set(weights) != set(stage.subset) or min(weights.values()) <= 0:
        raise error_at(
            f"{where}.subset_sampling_weights", f"expected a number above 0 for each of: {', '.join(stage.subset)}."
        )
    for name, weight in stage.class_weights.items() if isinstance(stage.class_weights, dict) else ():
        if weight <= 0:
            raise error_at(f"{where}.class_weights.{name}", f"is {weight}. Expected a number above 0.")
    if stage.noisy_loss is not None and not experiment.noisy_subsets(stage):
        raise error_at(
            f"{where}.noisy_loss", f"the stage has no noisy clips. {_add_noisy(experiment)}, or leave it out."
        )
    validation = experiment.validation
    if validation is None:
        return _check_without_validation(stage, where)
    if stage.validation_subset is not None:
        key = f"{where}.validation_subset"
        if validation.folds is None:
            raise error_at(key, 'needs folds. Change validation to {"folds": {}}, or leave validation_subset out.')
        if not set(stage.validation_subset) <= set(experiment.trusted) and not validation.folds.split_noisy:
            raise error_at(key, 'noisy clips are not split into folds. Add "split_noisy": true to validation.folds.')
    if validation.subset in stage.subset:
        raise error_at(
            f"{where}.subset", f"{validation.subset!r} validates, so nothing trains on it. Leave it out here."
        )
    if stage.epochs % stage.validation_freq:
        raise error_at(
            f"{where}.validation_freq",
            f"the last of {stage.epochs} epochs must be validated. Expected a divisor of {stage.epochs}.",
        )


def _check_without_validation(stage, where):
    """Refuses what needs validation clips."""
    without = '"validation" is null, so no clip validates'
    if stage.keep != "last":
        raise error_at(f"{where}.keep", f'{without} and there is no best epoch. Add "keep": "last".')
    for key, default in (("validation_freq", 1), ("validation_subset", None)):
        if getattr(stage, key) != default:
            raise error_at(f"{where}.{key}", f"{without}. Leave it out.")


def _check_learning_rate(stage, where):
    """Refuses two settings that change the learning rate, and a beta_1 or weight decay that the optimizer lacks."""
    if stage.schedule is not None and any(callback.name == "ReduceLROnPlateau" for callback in stage.callbacks):
        raise error_at(
            f"{where}.schedule",
            f"{stage.schedule.name} and ReduceLROnPlateau both change the learning rate. Leave out one of them.",
        )
    if getattr(stage.schedule, "beta_1", None) is not None and stage.optimizer.name not in ("adam", "adamw"):
        lacks = "keeps constant" if hasattr(stage.optimizer, "beta_1") else "does not have"
        raise error_at(
            f"{where}.schedule",
            f"{stage.schedule.name} changes beta_1, which {stage.optimizer.name} {lacks}. Name adam or adamw, "
            'or add "beta_1": null.',
        )
    if stage.weight_decay_on != "all" and not getattr(stage.optimizer, "weight_decay", None):
        raise error_at(f"{where}.weight_decay_on", "the optimizer has no weight decay. Give it a weight_decay.")


def _check_select(experiment, stage, earlier, where):
    """Refuses a selection without noisy clips, or by models that trained on these clips or come later."""
    if stage.select is None:
        return
    for name in stage.select.score_with:
        if name not in earlier:
            hint = signatures.nearest(name, earlier)
            raise error_at(
                f"{where}.select.score_with",
                f"no earlier stage is called {name!r}. {hint}Accepted: {', '.join(earlier) or 'none'}.",
            )
    rule = stage.select.rule
    for key, value in ({} if isinstance(rule, CustomComponent) else options(rule)).items():
        if not 0 <= value <= 1:
            raise error_at(f"{where}.select.rule.{key}", f"is {value}. Expected a number from 0 to 1.")
    if not experiment.noisy_subsets(stage):
        raise error_at(f"{where}.select", f"selects noisy clips. {_add_noisy(experiment)}.")
    every = set(range(experiment.num_folds))
    if experiment.split_noisy and set(experiment.held_out) != every:
        raise error_at(
            "validation.folds.held_out",
            f"every fold's model scores the noisy clips of its fold. Expected all of {sorted(every)}.",
        )
    if stage.select.rounds > 1 and not experiment.split_noisy:
        raise error_at(
            f"{where}.select.rounds",
            'from the second round on, a model would score clips that it trained on. Add "split_noisy": true to '
            "validation.folds.",
        )


def _check_embeddings(experiment, stage, where):
    """Refuses no epoch without an initial head, and stored embeddings of what differs from epoch to epoch."""
    if stage.epochs == 0 and stage.initial_head is None:
        raise error_at(
            f"{where}.epochs", "is 0, which only a stage with an initial_head may have. Expected at least 1."
        )
    if not stage.cache_embeddings:
        return
    here = f"{where}.cache_embeddings"
    if stage.backbone_lr_multiplier != 0:
        raise error_at(here, 'the backbone must not change. Add "backbone_lr_multiplier": 0 to the stage.')
    if stage.windows != "sliding":
        raise error_at(here, 'each epoch must use the same windows. Add "windows": "sliding" to the stage.')
    augment = experiment.augment if stage.augment is None else stage.augment
    if augment:
        what = f"{augment[0].name} changes images at random, before the backbone. "
        raise error_at(here, f'{what}Add "augment": [] to the stage.')
    augmentations = signatures.component_names("audiotag.layers", "IMAGE_AUGMENTATIONS")
    in_preprocess = [layer for layer in experiment.image_preprocess if layer.name in augmentations]
    for key, layers in (("waveform_augment", experiment.waveform_augment), ("image_preprocess", in_preprocess)):
        if layers:
            what = f"{layers[0].name} of {key} is random, before the backbone. Leave it out, or cache_embeddings."
            raise error_at(here, what)


def _check_task(experiment, stage, where):
    """Refuses a softmax for several labels, and sigmoids for a single one."""
    for key, loss in (("loss", stage.loss), ("noisy_loss", stage.noisy_loss or stage.loss)):
        is_softmax, is_single = loss.name == "categorical_crossentropy", experiment.task == "single_label"
        if not isinstance(loss, CustomComponent) and is_softmax != is_single:
            raise error_at(
                f"{where}.{key}",
                '"task": "single_label" and categorical_crossentropy require each other: a softmax chooses one class.',
            )


def _check_flips(experiment):
    """Refuses flips at inference without flips in training, and flips in only some of the stages."""
    stages = experiment.stages
    in_preprocess = _count_flips(experiment.image_preprocess)
    in_augment = _count_flips(experiment.augment)
    in_stages = sum(_count_flips(stage.augment or ()) for stage in stages)
    for where, predict in _predicts(experiment).items():
        if predict.flip_tta and not (in_preprocess or in_augment):
            raise error_at(
                f"{where}.flip_tta", 'needs flips as classes. Add {"name": "flips_as_classes"} to image_preprocess.'
            )
    if in_preprocess + in_augment > 1:
        raise error_at("image_preprocess", "flips_as_classes is listed twice. Name it once.")
    if in_stages or (in_augment and any(stage.augment is not None for stage in stages)):
        raise error_at(
            "augment",
            "flips_as_classes gives the network four times as many outputs, so every stage must have it. "
            "Move it to image_preprocess.",
        )
    if in_preprocess or in_augment:
        if experiment.noisy_head:
            raise error_at("noisy_head", "flips_as_classes has output layers of its own. Leave out one of them.")
        for index, stage in enumerate(stages):
            if stage.noisy_loss is not None:
                raise error_at(
                    f"stages[{index}].noisy_loss",
                    "flips_as_classes has output layers of its own. Leave out one of them.",
                )


def _check_crops(experiment):
    """Refuses predictions of random crops where training does not crop."""
    crops = [component for component in experiment.image_preprocess if component.name == "random_crop"]
    for where, predict in _predicts(experiment).items():
        if predict.windows == "random_crops" and not crops:
            raise error_at(
                f"{where}.windows",
                '"random_crops" needs a width. Add {"name": "random_crop", "num_frames": 384} to image_preprocess.',
            )


def _predicts(experiment):
    """{place: section} of each `predict`."""
    predicts = {"predict": experiment.predict}
    for index, stage in enumerate(experiment.stages):
        if stage.select is not None and stage.select.predict is not None:
            predicts[f"stages[{index}].select.predict"] = stage.select.predict
    return predicts


def _count_flips(components):
    return sum(component.name == "flips_as_classes" for component in components)


def _check_unions(experiment):
    """Refuses `"label_mixing": "union"` with noisy_head or noisy_loss, which need each clip's fraction of a mix."""
    separate = experiment.noisy_head or any(stage.noisy_loss is not None for stage in experiment.stages)
    lists = {key: getattr(experiment, key) for key in ("waveform_augment", "image_preprocess", "augment")}
    lists |= {f"stages[{index}].augment": stage.augment or () for index, stage in enumerate(experiment.stages)}
    for key, components in lists.items():
        for index, component in enumerate(components):
            if separate and getattr(component, "label_mixing", None) == "union":
                raise error_at(
                    f"{key}[{index}].label_mixing",
                    '"union" gives a mix all labels of both clips, but noisy_head and noisy_loss weight the labels of '
                    'each by its fraction of the mix. Expected "weighted".',
                )


def _check_pretrained(experiment):
    """Refuses published weights behind another front end than that of their training."""
    network, front_end = experiment.model.name, experiment.frontend.name
    expected = PRETRAINED.get(network, front_end)
    if getattr(experiment.model, "weights", None) is not None and front_end != expected:
        raise error_at(
            "frontend",
            f'found {front_end!r}, but the weights of {network} were trained on {{"name": "{expected}"}}. Use that, or '
            'set "weights" of the model to null.',
        )


def _check_folds(folds):
    seen = set()
    for fold in folds.held_out:
        if not 0 <= fold < folds.num_folds:
            raise error_at(
                "validation.folds.held_out", f"there is no fold {fold}. Accepted: 0 to {folds.num_folds - 1}."
            )
        if fold in seen:
            raise error_at("validation.folds.held_out", f"fold {fold} is listed twice. Name each fold once.")
        seen.add(fold)
