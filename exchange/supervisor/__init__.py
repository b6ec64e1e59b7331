"""The supervisor: a reconciler that keeps the cluster in its desired state. Its policies come here too."""
