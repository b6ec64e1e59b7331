"""Nothing is tested that was compiled from other sources: pytest ends at once then, and says what to do."""

import exchange.engine  # noqa: F401  # looks whether it is so
