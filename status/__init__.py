"""What the public is told: a status page, a Status API and announcements, from what a client measures."""
