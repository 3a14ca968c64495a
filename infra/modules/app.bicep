metadata description = 'The function app on its Flex Consumption plan'

@description('Name of the function app.')
param name string

@description('Name of the plan.')
param planName string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Python version.')
param pythonVersion string

@description('Memory of one instance in MB.')
param instanceMemoryMB int

@description('Most instances.')
param maximumInstanceCount int

@description('Resource id of the identity that the app runs as.')
param identityId string

@description('Client id of that identity.')
param identityClientId string

@description('Name of the storage account, in this resource group.')
param storageAccountName string

@description('Name of the blob container that the app package is deployed to.')
param deploymentContainer string

@description('Name of Application Insights, in this resource group.')
param applicationInsightsName string

@description('Whether telemetry is sent with a token of the identity.')
param entraTelemetry bool

@description('Resource id of the subnet that the app sends from. Empty: none.')
param subnetId string

@description('Whether the app answers on its public endpoint.')
param publicAccess bool

@description('NCRONTAB expression of the scheduled run, in UTC.')
param schedule string

@description('What the scheduled run does: audit, plan or fix.')
param mode string

@description('Whether this installation may change nodes at all.')
param allowFix bool

@description('Subscriptions that a run covers when its request names none. Empty: all that the identity sees.')
param subscriptions string[]

@description('Further settings of the app, by name; main.bicep says which there are.')
@secure()
param settings object

// The value that azure.yaml knows the service by.
var serviceName = 'guard'

resource storage 'Microsoft.Storage/storageAccounts@2026-09-01' existing = {
  name: storageAccountName
}

resource applicationInsights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: applicationInsightsName
}

// Runtime, version, package and time zone are no app settings on Flex Consumption: functionAppConfig holds them.
var ownSettings = [
  {
    name: 'APPLICATIONINSIGHTS_CONNECTION_STRING'
    value: applicationInsights.properties.ConnectionString
  }
  {
    name: 'AZURE_CLIENT_ID'
    value: identityClientId
  }
  // The host goes by the service addresses, which are right in every Azure cloud, before the account's name. That is for
  // what of the platform looks for the name alone: scaling and the host's health have failed without it.
  {
    name: 'AzureWebJobsStorage__accountName'
    value: storage.name
  }
  {
    name: 'AzureWebJobsStorage__blobServiceUri'
    value: storage.properties.primaryEndpoints.blob
  }
  {
    name: 'AzureWebJobsStorage__clientId'
    value: identityClientId
  }
  {
    name: 'AzureWebJobsStorage__credential'
    value: 'managedidentity'
  }
  {
    name: 'AzureWebJobsStorage__queueServiceUri'
    value: storage.properties.primaryEndpoints.queue
  }
  {
    name: 'AzureWebJobsStorage__tableServiceUri'
    value: storage.properties.primaryEndpoints.table
  }
  {
    name: 'GUARD_ALLOW_FIX'
    value: allowFix ? 'true' : 'false'
  }
  {
    name: 'GUARD_ARM_ENDPOINT'
    value: environment().resourceManager
  }
  {
    name: 'GUARD_MODE'
    value: mode
  }
  {
    name: 'GUARD_SCHEDULE'
    value: schedule
  }
  {
    name: 'GUARD_SUBSCRIPTIONS'
    value: join(subscriptions, ',')
  }
]

var telemetrySettings = entraTelemetry
  ? [
      {
        name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING'
        value: 'ClientId=${identityClientId};Authorization=AAD'
      }
    ]
  : []

var furtherSettings = [
  for entry in items(settings): {
    name: entry.key
    value: entry.value
  }
]

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  // checkov:skip=CKV_AZURE_225:A run that a lost zone interrupts goes on where it stopped, and not every region with Flex Consumption has zones.
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  // checkov:skip=CKV_AZURE_17:Callers show a function key. A client certificate for each of them would come on top.
  // checkov:skip=CKV_AZURE_212:The app scales to zero between runs. Always ready instances would be paid for all day.
  // checkov:skip=CKV_AZURE_213:Health checks of App Service watch instances that stay, which Flex Consumption does not have.
  // checkov:skip=CKV_AZURE_222:Public access is a parameter: network=private takes the app off the internet.
  name: name
  location: location
  tags: union(tags, {
    'azd-service-name': serviceName
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}${deploymentContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      scaleAndConcurrency: {
        alwaysReady: []
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
      }
      runtime: {
        name: 'python'
        version: pythonVersion
      }
    }
    siteConfig: {
      ftpsState: 'Disabled'
      http20Enabled: true
      minTlsVersion: '1.2'
      appSettings: concat(telemetrySettings, ownSettings, furtherSettings)
    }
  }

  // Deploying takes an Entra token: no publishing user and password.
  resource ftpCredentials 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: {
      allow: false
    }
  }

  resource scmCredentials 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: {
      allow: false
    }
  }
}

@description('Resource id.')
output id string = app.id

@description('Name.')
output name string = app.name

@description('Host name.')
output hostName string = app.properties.defaultHostName
