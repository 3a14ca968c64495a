using './main.bicep'

// azd sets AZURE_ENV_NAME and AZURE_LOCATION by itself and the others with `azd env set NAME VALUE`.
// With az: export them, or write values here.
param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'prod')
param location = readEnvironmentVariable('AZURE_LOCATION', 'westeurope')

// Lists are separated by commas; spaces and empty parts do not count.
param subscriptions = filter(
  map(split(readEnvironmentVariable('GUARD_SUBSCRIPTIONS', ''), ','), part => trim(part)),
  part => !empty(part)
)
param grantAccessTo = filter(
  map(split(readEnvironmentVariable('GUARD_GRANT_ACCESS_TO', ''), ','), part => trim(part)),
  part => !empty(part)
)
param grantSweep = bool(readEnvironmentVariable('GUARD_GRANT_SWEEP', 'false'))
param grantSweepApi = bool(readEnvironmentVariable('GUARD_GRANT_SWEEP_API', 'false'))

param schedule = readEnvironmentVariable('GUARD_SCHEDULE', '0 0 2 * * *')
param mode = readEnvironmentVariable('GUARD_MODE', 'audit')
param allowFix = bool(readEnvironmentVariable('GUARD_ALLOW_FIX', 'false'))

// Further settings of the app as JSON, such as {"GUARD_BUDGET_PERCENT": "50"}.
param settings = json(readEnvironmentVariable('GUARD_SETTINGS', '{}'))

param network = readEnvironmentVariable('GUARD_NETWORK', 'public')
// Both as JSON: {"app": "SUBNET-ID", "endpoints": "SUBNET-ID"}; {"zones": "none"}, or {"zones": "existing", "blob": "ZONE-ID", …}.
param subnets = json(readEnvironmentVariable('GUARD_SUBNETS', 'null'))
param dns = json(readEnvironmentVariable('GUARD_DNS', '{"zones": "create"}'))

param alertEmails = filter(
  map(split(readEnvironmentVariable('GUARD_ALERT_EMAILS', ''), ','), part => trim(part)),
  part => !empty(part)
)
param alertsOff = any(filter(
  map(split(readEnvironmentVariable('GUARD_ALERTS_OFF', ''), ','), part => trim(part)),
  part => !empty(part)
))

param tags = {
  application: 'aks-kubelet-guard'
}
