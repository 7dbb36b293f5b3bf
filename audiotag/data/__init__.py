"""Recordings, labels, records, and the tf.data pipeline that reads them."""
