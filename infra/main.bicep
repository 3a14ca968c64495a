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
  @description('How long a fix waits for its approval. It takes a number of hours from 0.001 to 120. Not given: 24.')
  GUARD_APPROVAL_HOURS: string?

  @description('The share of Azure\'s published limits that runs may use up. It takes a percentage from 1 to 100. Not given: 80.')
  GUARD_BUDGET_PERCENT: string?

  @description('How long a node is waited for that is busy: with somebody else\'s run command or another operation, a platform update, or starting. It takes a number of seconds from 0 to 3600. Not given: 180.')
  GUARD_BUSY_WAIT_SECONDS: string?

  @description('How long a run command is waited for. It takes a number of seconds from 5 to 5400. Not given: 600.')
  GUARD_COMMAND_DEADLINE_SECONDS: string?

  @description('How long a run command usually takes: the first look at its result comes then. It takes a number of seconds from 0.1 to 300. Not given: 22.')
  GUARD_COMMAND_SECONDS: string?

  @description('A catalogue of one\'s own: controls and benchmarks that are added, or that take the place of those with the same id (docs/adding-a-control.md). It takes a file\'s path, or the https URL of a blob, without a signature. Not given: nothing.')
  GUARD_CONTROLS_FILE: string?

  @description('The controls that a fix may set right, and those that a plan is made for where a request names none. It takes controls, such as 3.2.6, by comma or space. Not given: 3.2.6.')
  GUARD_FIX_CONTROLS: string?

  @description('A fix that nobody watches waits for a person where it is of more nodes than this. It takes a whole number of nodes from 0 to 100000. Not given: 20.')
  GUARD_FIX_MOST: string?

  @description('A fix that nobody watches waits, too, where more than this share of the nodes looked at newly fail. It takes a percentage from 0 to 100. Not given: 5.')
  GUARD_FIX_NEW_PERCENT: string?

  @description('How often `smart` looks at each node itself, also where all is well. It takes a number of days from 0 to 365. Not given: 7.')
  GUARD_FULL_EVERY: string?

  @description('How long runs are kept, with their findings and plans. It takes a whole number of days from 1 to 3650. Not given: 400.')
  GUARD_KEEP_DAYS: string?

  @description('How long that is kept which a run needs only while it goes: node lists, commands, progress. It takes a whole number of days from 1 to 3650. Not given: 14.')
  GUARD_KEEP_WORK_DAYS: string?

  @description('By management group, whose clusters a run looks at where `GUARD_SUBSCRIPTIONS` names none: those of all subscriptions below it. It takes a management group\'s id: letters, digits and -_.() , at most 90. Not given: nothing.')
  GUARD_MANAGEMENT_GROUP: string?

  @description('How long a restarted kubelet has to become healthy. It takes a whole number of seconds from 5 to 100. Not given: 90.')
  GUARD_RESTART_SECONDS: string?

  @description('How long a restarted kubelet must then stay healthy, within `GUARD_RESTART_SECONDS`. It takes a whole number of seconds from 1 to 60. Not given: 10.')
  GUARD_SETTLE_SECONDS: string?

  @description('Where runs are kept. Unset, the app takes `AzureWebJobsStorage__tableServiceUri`, `AzureWebJobsStorage__accountName` or `AzureWebJobsStorage`; the terminal a file in your state folder. It takes a table service\'s URL, a storage account\'s connection string, or a file\'s path; a secret. Not given: the host\'s storage.')
  GUARD_STORE: string?

  @description('How a cluster is asked for configz: from within, its kubelets `direct`ly (Kubernetes 1.33 and later) or by the API server\'s `proxy`; or by that proxy from the app itself, `api`, where it reaches the API server. The proxy is a right that can run commands on nodes (docs/cluster-witness.md). It takes direct, proxy or api. Not given: direct.')
  GUARD_SWEEP_WAY: ('direct' | 'proxy' | 'api')?

  @description('Who is asked: every `node` by run command; each cluster for the `configz` of its nodes; `both`; or `smart`: configz, and by run command the nodes that fail, are unclear, new, or not looked at for long. It takes node, configz, both or smart. Not given: node.')
  GUARD_WITNESS: ('node' | 'configz' | 'both' | 'smart')?
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

@description('Address range of the virtual network that is made, /24 or larger. Not used with the public network, or with subnets that are there.')
@minLength(9)
param networkAddressPrefix string = '10.90.0.0/24'

@sealed()
type existingSubnets = {
  @description('Resource id of the subnet that the app sends from: delegated to Microsoft.App/environments, /27 or larger, nothing else in it.')
  app: string

  @description('Resource id of the subnet that private endpoints take their addresses from.')
  endpoints: string
}

@description('Subnets that are there already, for the private networks. Given, no network, NAT gateway or address is made: the way out is theirs (docs/networking.md).')
param subnets existingSubnets?

@sealed()
type madeZones = {
  @description('The zones are made in the resource group and linked to the network.')
  zones: 'create'
}

@sealed()
type existingZones = {
  @description('The records go into zones that are there already. Whoever resolves names for the network sees them.')
  zones: 'existing'

  @description('Resource id of the private DNS zone of blobs.')
  blob: string

  @description('Resource id of the private DNS zone of queues.')
  queue: string

  @description('Resource id of the private DNS zone of tables.')
  table: string

  @description('Resource id of the private DNS zone of App Service, for the private network.')
  sites: string?
}

@sealed()
type noZones = {
  @description('Somebody else makes the records, such as a policy for private endpoints.')
  zones: 'none'
}

@discriminator('zones')
type dnsChoice = madeZones | existingZones | noZones

@description('Private DNS zones of the private networks: made here, there already, or not this deployment\'s matter (docs/networking.md).')
param dns dnsChoice = {
  zones: 'create'
}

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

// Private DNS zones by service ("Azure Private Endpoint private DNS zone values"). App Service's suffix is none of those
// that environment() knows.
var siteSuffixes = {
  AzureCloud: 'azurewebsites.net'
  AzureUSGovernment: 'azurewebsites.us'
  AzureChinaCloud: 'chinacloudsites.cn'
}
var siteZone = 'privatelink.${siteSuffixes[?environment().name] ?? ''}'
var storageServices = [
  'blob'
  'queue'
  'table'
]

// What cannot be meant ends the deployment before anything is made, instead of being left out in silence.
var appSubnet = subnets.?app ?? ''
var endpointSubnet = subnets.?endpoints ?? ''
var networks = map([appSubnet, endpointSubnet], id => split(toLower(id), '/subnets/'))
var areSubnets = length(networks[0]) == 2 && length(networks[1]) == 2
var wrong = filter(
  [
    {
      is: network == 'public' && (subnets != null || dns.zones != 'create')
      say: 'subnets and dns are for a private network: set network to private-storage or private, or leave them out.'
    }
    {
      is: network == 'private' && dns.zones == 'existing' && empty(dns.?sites)
      say: 'network private gives the app an endpoint, too: dns wants sites besides, the id of the zone ${siteZone}.'
    }
    {
      is: network == 'private' && dns.zones == 'create' && !contains(siteSuffixes, environment().name)
      say: 'the names of function apps in this cloud are not known: make the zones yourself, and give their ids in dns.'
    }
    {
      is: subnets != null && !areSubnets
      say: 'subnets wants the ids of two subnets, such as /subscriptions/…/virtualNetworks/NETWORK/subnets/SUBNET.'
    }
    {
      is: subnets != null && toLower(appSubnet) == toLower(endpointSubnet)
      say: 'subnets names one subnet twice: the app has its own to itself, and private endpoints need another one.'
    }
    {
      is: areSubnets && dns.zones == 'create' && networks[0][0] != networks[1][0]
      say: 'subnets are of two networks, and zones that are made here are linked to one: make them yourself, linked to both, and give their ids in dns.'
    }
  ],
  rule => rule.is
)
var privateStorage = empty(wrong) ? network != 'public' : fail(join(map(wrong, rule => rule.say), ' '))
var privateApp = privateStorage && network == 'private'
var madeNetwork = privateStorage && subnets == null

// The Functions host asks for tokens of the public cloud's audience alone (microsoft/ApplicationInsights-dotnet, issue
// 2962), which the other clouds refuse: there telemetry is sent with the key of the connection string.
var entraTelemetry = environment().name == 'AzureCloud'

var deploymentContainer = 'app-package'
var controlsContainer = 'controls'

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
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
    entraOnly: entraTelemetry
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

module privateNetwork 'modules/network.bicep' = if (madeNetwork) {
  name: 'kubelet-guard-network'
  scope: group
  params: {
    name: 'kubelet-guard-${token}'
    location: location
    tags: allTags
    addressPrefix: networkAddressPrefix
  }
}

module storageEndpoints 'modules/private-endpoint.bicep' = [
  for service in storageServices: if (privateStorage) {
    name: 'kubelet-guard-storage-${service}'
    scope: group
    params: {
      name: 'pe-${service}-kubelet-guard-${token}'
      location: location
      tags: allTags
      targetId: storage.outputs.id
      groupId: service
      zoneName: dns.zones == 'create' ? 'privatelink.${service}.${environment().suffixes.storage}' : ''
      zoneId: dns.zones == 'existing' ? dns[service] : ''
      subnetId: madeNetwork ? privateNetwork!.outputs.endpointSubnetId : endpointSubnet
    }
  }
]

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
    entraTelemetry: entraTelemetry
    subnetId: madeNetwork ? privateNetwork!.outputs.appSubnetId : appSubnet
    publicAccess: !privateApp
    schedule: schedule
    mode: mode
    allowFix: allowFix
    subscriptions: subscriptions
    settings: settings
  }
  // It starts with its storage in reach, and its name known.
  dependsOn: [
    storageEndpoints
  ]
}

module appEndpoint 'modules/private-endpoint.bicep' = if (privateApp) {
  name: 'kubelet-guard-app-endpoint'
  scope: group
  params: {
    name: 'pe-app-${token}'
    location: location
    tags: allTags
    targetId: app.outputs.id
    groupId: 'sites'
    zoneName: dns.zones == 'create' ? siteZone : ''
    zoneId: dns.zones == 'existing' ? (dns.?sites ?? '') : ''
    subnetId: madeNetwork ? privateNetwork!.outputs.endpointSubnetId : endpointSubnet
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
