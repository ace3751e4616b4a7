"""The warehouse: engine, landing contract, loading, ledger, dbt for one day."""
