metadata description = 'aks-kubelet-guard: everything that the app needs, in one resource group'

targetScope = 'subscription'

@description('Short name of this installation, such as prod. Names of resources are derived from it and from the subscription.')
@minLength(1)
@maxLength(40)
param environmentName string

@description('Azure region of all resources. It must offer Flex Consumption: az functionapp list-flexconsumption-locations.')
@minLength(1)
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@description('Name of the resource group that is created (or used, where it exists).')
@minLength(1)
@maxLength(90)
param resourceGroupName string = 'rg-kubelet-guard-${environmentName}'

@description('Tags of all resources.')
param tags object = {}

@description('Python version that the app runs on.')
@allowed([
  '3.11'
  '3.12'
  '3.13'
])
param pythonVersion string = '3.12'

@description('Memory of one instance in MB. The CPU share grows with it.')
@allowed([
  2048
  4096
])
param instanceMemoryMB int = 2048

@description('Most instances that the app may scale out to. A run needs few; Flex Consumption took no value below 40 at first and takes less now.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('When the scheduled run starts: NCRONTAB with six fields (second first), in UTC. Flex Consumption knows no other time zone.')
@minLength(11)
param schedule string = '0 0 2 * * *'

@description('What the scheduled run does. fix needs allowFix as well.')
@allowed([
  'audit'
  'plan'
  'fix'
])
param mode string = 'audit'

@description('First key of two for fixes: false makes this installation unable to change a node, whoever asks.')
param allowFix bool = false

@description('Ids of the subscriptions that a run covers when its request names none. Empty: every subscription that the identity can see.')
param subscriptions string[] = []

@description('Further settings of the app, by name, such as {"GUARD_BUDGET_PERCENT": "50"}: docs/settings.md has them all with their limits. What is set on the app by other means is gone after the next deployment.')
@sealed()
@secure()
param settings {
  GUARD_APPROVAL_HOURS: string?
  GUARD_BUDGET_PERCENT: string?
  GUARD_BUSY_WAIT_SECONDS: string?
  GUARD_COMMAND_DEADLINE_SECONDS: string?
  GUARD_COMMAND_SECONDS: string?
  GUARD_CONTROLS_FILE: string?
  GUARD_FIX_CONTROLS: string?
  GUARD_FIX_MOST: string?
  GUARD_FIX_NEW_PERCENT: string?
  GUARD_FULL_EVERY: string?
  GUARD_KEEP_DAYS: string?
  GUARD_KEEP_WORK_DAYS: string?
  GUARD_MANAGEMENT_GROUP: string?
  GUARD_RESTART_SECONDS: string?
  GUARD_SETTLE_SECONDS: string?
  GUARD_STORE: string?
  GUARD_SWEEP_WAY: string?
  GUARD_WITNESS: string?
} = {}

@description('Ids of subscriptions in which this deployment also creates the custom role and gives it to the app. It takes Owner or User Access Administrator there. Empty: use access-subscription.bicep or access-management-group.bicep afterwards.')
param grantAccessTo string[] = []

@description('Whether that gives the app the role that runs commands on nodes, as root: the one for auditing and fixing them.')
param grantNodes bool = true

@description('Whether that gives the app the second role too, which invokes commands in clusters (docs/cluster-witness.md).')
param grantSweep bool = false

@description('Whether that second role (also) lets the app ask API servers by itself: it hands out the users\' credentials of clusters.')
param grantSweepApi bool = false

@description('Network: public has none of its own; private-storage reaches the storage through private endpoints only; private also takes the app itself off the internet (deploy and call it from inside the network).')
@allowed([
  'public'
  'private-storage'
  'private'
])
param network string = 'public'

@description('Address range of the virtual network, /24 or larger. Not used with the public network.')
@minLength(9)
param networkAddressPrefix string = '10.90.0.0/24'

@description('Replication of the storage account, which holds the findings.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
])
param storageSku string = 'Standard_LRS'

@description('Days that telemetry is kept. Application Insights tables are kept for 90 days without charge.')
@minValue(30)
@maxValue(730)
param retentionDays int = 90

@description('Most telemetry taken in a day in GB, against a runaway bill. Telemetry past it is lost until the next day. -1: no limit.')
@minValue(-1)
@maxValue(100)
param dailyQuotaGb int = 5

@description('Whether the alert rules are created.')
param alerts bool = true

@description('Names of alert rules that are switched off (docs/alerts.md).')
@allowed([
  'node-broken'
  'fix-failed'
  'run-failed'
  'run-overdue'
  'refused'
  'watchdog-silent'
  'nodes-failing'
  'nodes-newly-failing'
  'undetermined'
  'approval-waiting'
  'run-late'
  'fixes-held'
])
param alertsOff array = []

@description('E-mail addresses that alerts are sent to.')
param alertEmails string[] = []

@description('Resource ids of existing action groups that alerts are sent to.')
param actionGroupIds string[] = []

@description('Share of the nodes of a run, in percent, that may end in error for any control before an alert is raised.')
@minValue(0)
@maxValue(100)
param undeterminedPercent int = 5

// One token for all names: the same environment in the same place gives the same names again.
var token = uniqueString(subscription().id, environmentName, location)
var allTags = union(tags, {
  'azd-env-name': environmentName
})
var privateStorage = network != 'public'
var deploymentContainer = 'app-package'
var controlsContainer = 'controls'

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: resourceGroupName
  location: location
  tags: allTags
}

module identity 'modules/identity.bicep' = {
  name: 'kubelet-guard-identity'
  scope: group
  params: {
    name: 'id-kubelet-guard-${token}'
    location: location
    tags: allTags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'kubelet-guard-monitoring'
  scope: group
  params: {
    workspaceName: 'log-kubelet-guard-${token}'
    applicationInsightsName: 'appi-kubelet-guard-${token}'
    location: location
    tags: allTags
    retentionDays: retentionDays
    dailyQuotaGb: dailyQuotaGb
    publisherPrincipalId: identity.outputs.principalId
  }
}

module storage 'modules/storage.bicep' = {
  name: 'kubelet-guard-storage'
  scope: group
  params: {
    name: 'stguard${token}'
    location: location
    tags: allTags
    sku: storageSku
    publicAccess: !privateStorage
    deploymentContainer: deploymentContainer
    controlsContainer: controlsContainer
    principalId: identity.outputs.principalId
  }
}

module privateNetwork 'modules/network.bicep' = if (privateStorage) {
  name: 'kubelet-guard-network'
  scope: group
  params: {
    name: 'kubelet-guard-${token}'
    location: location
    tags: allTags
    addressPrefix: networkAddressPrefix
    storageAccountId: storage.outputs.id
  }
}

module app 'modules/app.bicep' = {
  name: 'kubelet-guard-app'
  scope: group
  params: {
    name: 'func-kubelet-guard-${token}'
    planName: 'plan-kubelet-guard-${token}'
    location: location
    tags: allTags
    pythonVersion: pythonVersion
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    storageAccountName: storage.outputs.name
    deploymentContainer: deploymentContainer
    applicationInsightsName: monitoring.outputs.applicationInsightsName
    subnetId: privateStorage ? privateNetwork!.outputs.appSubnetId : ''
    publicAccess: network != 'private'
    schedule: schedule
    mode: mode
    allowFix: allowFix
    subscriptions: subscriptions
    settings: settings
  }
}

module appEndpoint 'modules/private-endpoint.bicep' = if (network == 'private') {
  name: 'kubelet-guard-app-endpoint'
  scope: group
  params: {
    name: 'pe-app-${token}'
    location: location
    tags: allTags
    targetId: app.outputs.id
    groupId: 'sites'
    zoneName: app.outputs.privateZoneName
    networkId: privateNetwork!.outputs.id
    subnetId: privateNetwork!.outputs.endpointSubnetId
  }
}

module workbook 'modules/workbook.bicep' = {
  name: 'kubelet-guard-workbook'
  scope: group
  params: {
    location: location
    tags: allTags
    applicationInsightsId: monitoring.outputs.applicationInsightsId
  }
}

module alertRules 'modules/alerts.bicep' = if (alerts) {
  name: 'kubelet-guard-alerts'
  scope: group
  params: {
    location: location
    tags: allTags
    environmentName: environmentName
    token: token
    applicationInsightsId: monitoring.outputs.applicationInsightsId
    emails: alertEmails
    actionGroupIds: actionGroupIds
    undeterminedPercent: undeterminedPercent
    off: alertsOff
  }
}

module access 'modules/access.bicep' = [
  for id in grantAccessTo: {
    name: 'kubelet-guard-access-${uniqueString(id, token)}'
    scope: subscription(id)
    params: {
      principalId: identity.outputs.principalId
      nodes: grantNodes
      sweep: grantSweep
      sweepApi: grantSweepApi
    }
  }
]

@description('Region, in the name that azd keeps it by.')
output AZURE_LOCATION string = location

@description('Resource group of the app.')
output AZURE_RESOURCE_GROUP string = group.name

@description('Name of the function app: for deploying the code and for reading its keys.')
output FUNCTION_APP_NAME string = app.outputs.name

@description('Host name of the function app: the API is at https://HOST/api.')
output FUNCTION_APP_HOST string = app.outputs.hostName

@description('Object id of the identity: the principalId of access-subscription.bicep and access-management-group.bicep.')
output IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId

@description('URL of the storage account\'s tables, for reading the findings with the terminal command.')
output STORE_URL string = storage.outputs.tableEndpoint

@description('URL of the container for a catalogue of controls of one\'s own: GUARD_CONTROLS_FILE is this, a slash and the blob\'s name.')
output CONTROLS_URL string = '${storage.outputs.blobEndpoint}${controlsContainer}'

@description('Name of the Application Insights resource.')
output APPLICATION_INSIGHTS_NAME string = monitoring.outputs.applicationInsightsName
