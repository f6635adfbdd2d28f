"""What runs on the cluster: Ray itself, trainings of references, trials on actors. Only this package imports Ray."""
