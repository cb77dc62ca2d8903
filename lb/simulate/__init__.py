"""Floor 2: policies on virtual time. Pool and policies are the real ones; the world around is made up."""
