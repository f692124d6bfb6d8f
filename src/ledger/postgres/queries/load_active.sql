SELECT export, hash FROM active_definitions WHERE export = ANY ($1)
