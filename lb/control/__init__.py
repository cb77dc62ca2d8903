"""Floor 2, the slow path: health probes, the admin API, the dashboard. asyncio and aiohttp."""
