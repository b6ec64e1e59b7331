"""Nothing is tested that was compiled from other sources: pytest ends at once then, and says what to do."""

import exchange.engine  # noqa: F401  # looks whether it is so
from exchange.forks import keep_grpc_out_of_forks

# Before any test imports gRPC: some of them start Ray.
keep_grpc_out_of_forks()
