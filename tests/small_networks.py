"""Settings of TensorFlow and JAX for networks as small as those of the tests.

TensorFlow's graph optimizer takes a fifth of the time of their trainings, and saves nothing. Threads of one operation
only wait for each other; pytest uses the cores. XLA compiles twice as fast without its optimizations. `make demo` has
the defaults.
"""

import os


def set_environment():
    """To be called before TensorFlow is imported; the processes of tests inherit it."""
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")


def no_graph_optimizer():
    """To be called once TensorFlow is imported; starts nothing, so that processes can be forked afterwards."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
