"""Memory: generations and buckets shared by a host's workers, and each worker's ready responses."""
