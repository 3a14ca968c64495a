"""What a run is (pure): its request, its plans and waves, its messages, and the names of what it keeps."""

ENGINE = 3
"""The version of the order in which a run's steps are done, and of the messages between them.

An orchestration that another version began is ended in words (hosts/watchdog.py); what the store holds of a run is
versioned apart from it (shared.store).
"""
