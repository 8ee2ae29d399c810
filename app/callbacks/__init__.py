"""What the page does when somebody acts: one file a task, no layout."""
