"""Settings of TensorFlow for networks as small as those of the tests.

Its graph optimizer takes a fifth of the time of their trainings, and saves nothing. Threads of one operation only wait
for each other; pytest uses the cores. `make demo` and the commands that run as programs have TensorFlow's defaults.
"""

import os


def one_thread():
    """To be called before TensorFlow is imported."""
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


def no_graph_optimizer():
    """To be called once TensorFlow is imported; starts nothing, so that processes can be forked afterwards."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
