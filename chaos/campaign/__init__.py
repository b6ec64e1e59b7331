"""Random faults under load, one after the other, and then every rule on the whole history."""
