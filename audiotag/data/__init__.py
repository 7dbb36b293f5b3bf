"""What do we listen to? Recordings, labels, records and the pipeline that reads them."""
