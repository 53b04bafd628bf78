"""The systemd adapter: units of this user through `systemctl --user`, and words to the manager that started us."""
